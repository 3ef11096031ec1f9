"""Turn the bytes of an untrusted answer into a JSON value, or say whether another try could help."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping
from email.message import Message
from typing import Any

import orjson

from tidemill_ingest_api.errors import InvalidResponse, UpstreamUnavailable
from tidemill_ingest_api.records import exact

_UTF8 = "utf-8"
# Only plain character sets: codecs such as punycode or unicode_escape are no encoding of an answer.
_CHARSETS = re.compile(r"ascii|utf-(8|16|32)(-le|-be)?|iso8859-\d+|cp\d+|koi8-[ru]|gb\w+|big5|shift_jis|euc_\w+")
_NOT_JSON_NUMBER = re.compile(r"-?(NaN|Infinity)|infinity when parsed")


def decode_json(body: bytes, headers: Mapping[str, str], url: str) -> Any:
    """Read a body as JSON.

    Args:
        body: Decompressed bytes; a byte order mark is skipped (RFC 8259 allows readers to).
        headers: Lower-case names; `content-type` may declare a charset, UTF-8 otherwise.
        url: For errors, without secrets.

    Raises:
        UpstreamUnavailable: JSON was cut short or torn; another try may bring the whole.
        InvalidResponse: Another try brings the same: not JSON, NaN, too deep, or a wrong encoding.
    """
    charset = _charset(headers.get("content-type", ""), url)
    if charset != _UTF8:
        body = _as_utf8(body, charset, url)
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        return exact.loads(body)
    except orjson.JSONDecodeError as error:
        raise _fault(body, error, url) from None
    except RecursionError:
        raise InvalidResponse(url, "the JSON is nested too deep for a body with numbers beyond 64 bits") from None
    except ValueError:
        raise InvalidResponse(url, "a number has more digits than can be read exactly (4,300)") from None


def _charset(content_type: str, url: str) -> str:
    if "charset" not in content_type.lower():
        return _UTF8
    message = Message()
    message["content-type"] = content_type
    declared = message.get_content_charset() or _UTF8
    try:
        name = codecs.lookup(declared).name
    except (LookupError, ValueError):
        name = ""
    if not _CHARSETS.fullmatch(name):
        raise InvalidResponse(url, f"its charset {declared!r} is none we can read")
    return name


def _as_utf8(body: bytes, charset: str, url: str) -> bytes:
    try:
        return body.decode(charset).removeprefix("\ufeff").encode()
    except UnicodeError:
        raise InvalidResponse(url, f"the body is not the {charset} that its content-type declares") from None


def _fault(body: bytes, error: orjson.JSONDecodeError, url: str) -> InvalidResponse | UpstreamUnavailable:
    if body.lstrip()[:1] not in {b"{", b"["}:
        return InvalidResponse(url, f"the body is not JSON: {error}")
    if "depth limit" in error.msg:
        return InvalidResponse(url, "the JSON is nested deeper than 1,024 levels")
    # The parser stops behind the sign of -Infinity, so the character before is looked at as well.
    at = error.doc[max(0, error.pos - 1) : error.pos + 9]
    if _NOT_JSON_NUMBER.search(error.msg) or _NOT_JSON_NUMBER.match(at.lstrip(" :,[\t\r\n")):
        return InvalidResponse(url, f"NaN and infinity are no JSON numbers (at character {error.pos})")
    if _is_not_utf8(body):
        return InvalidResponse(url, "the body is not UTF-8; the API should declare its charset in content-type")
    return UpstreamUnavailable(url, f"the JSON is cut short or broken: {error}")


def _is_not_utf8(body: bytes) -> bool:
    """Tell wrong bytes from a character that is cut in two at the end."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        return error.reason != "unexpected end of data"
    return False
