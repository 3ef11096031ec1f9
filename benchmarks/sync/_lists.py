"""An S3 server that only lists: two equal buckets of any size, its pages made before."""

from __future__ import annotations

import json
import sys
from hashlib import md5
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

PAGE_KEYS = 1_000
_PAGE = (
    '<?xml version="1.0" encoding="UTF-8"?>\n<ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
    "<Name>bucket</Name><Prefix></Prefix><KeyCount>{count}</KeyCount><MaxKeys>1000</MaxKeys>"
    "<EncodingType>url</EncodingType><IsTruncated>{more}</IsTruncated>{token}{contents}</ListBucketResult>"
)
_ITEM = (
    "<Contents><Key>{key}</Key><LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>&quot;{etag}&quot;</ETag>"
    "<Size>4096</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def key_of(number: int) -> str:
    """The key of an object."""
    return f"{number:09}.bin"


def etag_of(number: int) -> str:
    """Its etag, of the form of an MD5."""
    return md5(str(number).encode(), usedforsecurity=False).hexdigest()


def page(first: int, count: int) -> bytes:
    """Write the page that begins with an object."""
    end = min(first + PAGE_KEYS, count)
    contents = "".join(_ITEM.format(key=key_of(number), etag=etag_of(number)) for number in range(first, end))
    more = end < count
    token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
    return _PAGE.format(count=end - first, more=str(more).lower(), token=token, contents=contents).encode()


def serve(count: int) -> None:
    """Print the port, and serve until killed; the number of requests is at /requests."""
    pages = {first: page(first, count) for first in range(0, max(count, 1), PAGE_KEYS)}
    seen = [0]

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = 1 << 20

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            if parts.path == "/requests":
                return self._answer(json.dumps(seen[0]).encode())
            seen[0] += 1
            query = parse_qs(parts.query)
            return self._answer(pages[int(query.get("continuation-token", ["0"])[0])])

        def do_HEAD(self) -> None:
            seen[0] += 1
            self._answer(b"")

        def _answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]))
