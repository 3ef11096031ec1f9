"""Exit 0 if a service of this container is ready: `http://host:port/path`, or `grpc://host:port` for a code server.

Standard library and grpc only: a health check runs every few seconds.
"""

import sys
import urllib.error
import urllib.request
from urllib.parse import urlsplit

TIMEOUT_S = 5.0


def http(url: str) -> str | None:
    """Ask for the page; return what is wrong."""
    try:
        with urllib.request.urlopen(url, timeout=TIMEOUT_S) as answer:
            return None if answer.status < 400 else f"{answer.status}"
    except urllib.error.HTTPError as error:
        return f"{error.code}: {error.read(500).decode(errors='replace').strip()}"
    except OSError as error:
        return str(error)


def grpc(address: str) -> str | None:
    """Ask Dagster's code server through the standard health service; return what is wrong."""
    import grpc as library
    from grpc_health.v1 import health_pb2, health_pb2_grpc

    with library.insecure_channel(address) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(service="DagsterApi"), timeout=TIMEOUT_S)
        except library.RpcError as error:
            return str(error.details())
    return None if answer.status == health_pb2.HealthCheckResponse.SERVING else "not serving"


def main() -> None:
    """Check the one argument."""
    url = sys.argv[1] if len(sys.argv) > 1 else ""
    parts = urlsplit(url)
    checks = {"http": lambda: http(url), "grpc": lambda: grpc(parts.netloc)}
    if parts.scheme not in checks:
        sys.exit(f"healthcheck: give http://host:port/path or grpc://host:port, not {url!r}")
    if wrong := checks[parts.scheme]():
        sys.exit(f"{url}: {wrong}")


if __name__ == "__main__":
    main()
