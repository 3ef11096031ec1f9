"""Clouds on loopback: one server that is every host of every cloud, and the proxy that leads there.

Requests to real names (``bucket.s3.eu-west-1.amazonaws.com``) arrive by ``HTTPS_PROXY`` and are
answered over TLS with a certificate of an authority of the test's own, so that a test sees host,
path, query, headers and body as the real cloud would, and nothing leaves the machine.
"""

import datetime as dt
import io
import ipaddress
import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOSTS = [
    "*.s3.us-east-1.amazonaws.com",
    "*.s3.eu-west-1.amazonaws.com",
    "*.s3.ap-south-1.amazonaws.com",
    "s3.eu-west-1.amazonaws.com",
    "*.s3-fips.us-east-1.amazonaws.com",
    "*.s3-fips.dualstack.us-east-1.amazonaws.com",
    "*.s3-accesspoint.eu-west-1.amazonaws.com",
    "sts.amazonaws.com",
    "sts.eu-west-1.amazonaws.com",
    "sts.googleapis.com",
    "oauth2.googleapis.com",
    "iamcredentials.googleapis.com",
    "storage.googleapis.com",
    "*.blob.core.windows.net",
    "login.microsoftonline.com",
    "login.microsoft.com",
    "localhost",
]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request as it arrived."""

    method: str
    host: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    is_tunnelled: bool
    is_forwarded: bool
    target: str

    @property
    def authorization(self) -> str:
        return self.headers.get("authorization", "")


Answer = tuple[int, dict[str, str], bytes]
Answering = Callable[[Asked], Answer]


@dataclass(kw_only=True)
class Cloud:
    """Where the fake is, and what it was asked."""

    url: str
    ca_file: Path
    asked: list[Asked] = field(default_factory=list)
    tunnels: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    answer: Answering = lambda asked: (404, {}, b"")

    def to(self, host: str) -> list[Asked]:
        """What a host was asked."""
        return [each for each in self.asked if each.host == host]

    def environment(self) -> dict[str, str]:
        """What leads every cloud's library here."""
        return {
            "HTTPS_PROXY": self.url,
            "NO_PROXY": "127.0.0.1,localhost",
            "REQUESTS_CA_BUNDLE": str(self.ca_file),
            "SSL_CERT_FILE": str(self.ca_file),
            "AWS_EC2_METADATA_DISABLED": "true",
            "NO_GCE_CHECK": "true",
        }


@contextmanager
def serving(folder: Path) -> Iterator[Cloud]:
    """Serve until the block ends."""
    ca_file, context = _certificates(folder)
    cloud = Cloud(url="", ca_file=ca_file)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        tunnel: str | None = None

        def do_CONNECT(self) -> None:
            cloud.tunnels.append((self.path, {name.lower(): value for name, value in self.headers.items()}))
            self.send_response(200)
            self.end_headers()
            try:
                self.connection = context.wrap_socket(self.connection, server_side=True)
            except (OSError, ssl.SSLError):
                self.close_connection = True
                return
            self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb")
            self.tunnel, self.close_connection = self.path, False

        def answer(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            body = self.rfile.read(size)
            if self.headers.get("Transfer-Encoding") == "chunked":
                body = self._chunked()
            is_forwarded = self.path.startswith("http://")
            parts = urlsplit(self.path)
            host = parts.netloc if is_forwarded else self.headers["Host"]
            asked = Asked(
                method=self.command,
                host=host,
                path=parts.path,
                query=dict(parse_qsl(parts.query, keep_blank_values=True)),
                headers={name.lower(): value for name, value in self.headers.items()},
                body=body,
                is_tunnelled=self.tunnel is not None,
                is_forwarded=is_forwarded,
                target=self.path,
            )
            cloud.asked.append(asked)
            status, headers, content = cloud.answer(asked)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
            self.wfile.flush()

        def _chunked(self) -> bytes:
            body = b""
            while size := int(self.rfile.readline(), 16):
                body += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return body

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = answer  # noqa: N815  # the names of the base class

        def log_message(self, *args: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    cloud.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02), daemon=True).start()
    try:
        yield cloud
    finally:
        server.shutdown()
        server.server_close()


def signature_is_right(asked: Asked, secret: str) -> bool:
    """Check Signature Version 4 by botocore's own code."""
    from botocore.auth import S3SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.credentials import Credentials

    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=([^/]+)/\d{8}/([^/]+)/s3/aws4_request, SignedHeaders=([^,]+), Signature=(\w+)",
        asked.authorization,
    )
    if found is None:
        return False
    key, region, names, signature = found.groups()
    url = f"https://{asked.host}{asked.path}"
    headers = {name: asked.headers[name] for name in names.split(";")}
    request = AWSRequest(method=asked.method, url=url, params=asked.query, headers=headers)
    request.context["timestamp"] = asked.headers["x-amz-date"]
    auth = S3SigV4Auth(Credentials(key, secret), "s3", region)
    text = auth.string_to_sign(request, auth.canonical_request(request))
    return signature == auth.signature(text, request)


def parquet_object(columns: dict[str, list[Any]]) -> Answering:
    """Answer every GET and HEAD by one Parquet file, or the bytes of it that are asked for."""
    import polars as pl

    file = io.BytesIO()
    pl.DataFrame(columns).write_parquet(file)
    body = file.getvalue()

    def answer(asked: Asked) -> Answer:
        about = {
            "ETag": '"e1"',
            "Last-Modified": "Fri, 27 Nov 2026 00:00:00 GMT",
            "x-goog-generation": "1",
            "Accept-Ranges": "bytes",
        }
        wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", asked.headers.get("range", ""))
        if asked.method == "HEAD" or wanted is None:
            return 200, {**about, "Content-Length": str(len(body))}, body
        first = int(wanted[1]) if wanted[1] else max(0, len(body) - int(wanted[2]))
        last = min(int(wanted[2]), len(body) - 1) if wanted[1] and wanted[2] else len(body) - 1
        return 206, {**about, "Content-Range": f"bytes {first}-{last}/{len(body)}"}, body[first : last + 1]

    return answer


def region_of(asked: Asked) -> str:
    """The region that a request was signed for."""
    return asked.authorization.split("/")[2] if "/" in asked.authorization else ""


def _certificates(folder: Path) -> tuple[Path, ssl.SSLContext]:
    """Make an authority, and a certificate for every host of the clouds."""
    folder.mkdir(exist_ok=True)
    now = dt.datetime.now(dt.UTC)
    ends = now + dt.timedelta(days=1)
    authority_key, key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
    authority = (
        x509.CertificateBuilder(name, name, authority_key.public_key(), x509.random_serial_number(), now, ends)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    hosts = [x509.DNSName(host) for host in HOSTS] + [x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    own = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "clouds")])
    certificate = (
        x509.CertificateBuilder(name, own, key.public_key(), x509.random_serial_number(), now, ends)
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    ca_file, chain = folder / "authority.pem", folder / "server.pem"
    ca_file.write_bytes(authority.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    chain.write_bytes(private + certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    return ca_file, context
