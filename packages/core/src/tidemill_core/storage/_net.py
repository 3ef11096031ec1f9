"""The way to a server: its authorities, and the proxy in between, as the environment has them."""

from __future__ import annotations

import logging
import os
import ssl
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

from tidemill_core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy of the environment; `headers` are what it wants to know, and hold its password."""

    host: str
    port: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        """Its address, without the password."""
        return f"{self.host}:{self.port}"

    __repr__ = __str__


def proxy_for(origin: str) -> Proxy | None:
    """Find the proxy for ``scheme://host:port`` by ``HTTP(S)_PROXY`` and ``NO_PROXY``; None if there is none.

    Raises:
        ConfigError: The proxy's address is no URL.
    """
    url = proxy_url(origin)
    if url is None:
        return None
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or 80
    except ValueError:
        host, port = None, 0
    if not host or parts.scheme != "http":
        where = f"{urlsplit(origin).scheme.upper()}_PROXY"
        raise ConfigError(f"the proxy of {where} has no address such as http://host:port") from None
    if parts.username is None:
        return Proxy(host=host, port=port)
    words = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(
        host=host,
        port=port,
        headers={"Proxy-Authorization": f"Basic {b64encode(words.encode()).decode()}"},
    )


def proxy_url(origin: str) -> str | None:
    """The proxy's address as the environment has it, with its password; None if an origin is reached directly."""
    from urllib.request import getproxies, proxy_bypass

    parts = urlsplit(origin)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.netloc) or _is_in_networks(parts.hostname or "", proxies.get("no", "")):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def tls_context(ca_bundle: str | None) -> ssl.SSLContext:
    """The context of all connections that trust the same; None trusts the system's, or ``SSL_CERT_FILE``.

    Raises:
        ConfigError: The CA bundle cannot be read.
    """
    return _context(ca_bundle, os.environ.get("SSL_CERT_FILE"), os.environ.get("SSL_CERT_DIR"))


def trusted(given: Path | None) -> str | None:
    """Choose the CA bundle: the settings', or ``REQUESTS_CA_BUNDLE``; None means the system's."""
    return str(given) if given else os.environ.get("REQUESTS_CA_BUNDLE") or None


def quiet(*loggers: str) -> None:
    """Let a cloud's library not log what it also raises: our error says it in one line, without a traceback.

    A logger whose level somebody has set is left as it is.
    """
    for each in map(logging.getLogger, loggers):
        if each.level == logging.NOTSET:
            each.setLevel(logging.CRITICAL)


def checked_endpoint(url: str, name: str) -> str:
    """Return an endpoint without its last slash.

    Raises:
        ConfigError: It is no http or https URL; says which setting it is.
    """
    try:
        parts = urlsplit(url)
        is_right = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        is_right = False
    if not is_right or any(char.isspace() for char in url):
        raise ConfigError(f"{name} is {url!r}; it must be a URL such as https://host:port")
    return url.rstrip("/")


@lru_cache(maxsize=16)
def _context(ca_bundle: str | None, *_environment: str | None) -> ssl.SSLContext:
    """Make one context for all connections that trust the same; reading the authorities takes 20 ms."""
    if ca_bundle is None:
        return ssl.create_default_context()
    is_folder = Path(ca_bundle).is_dir()
    try:
        return ssl.create_default_context(
            cafile=None if is_folder else ca_bundle, capath=ca_bundle if is_folder else None
        )
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"the CA bundle {ca_bundle} cannot be read: {error.strerror or error}") from error


def _is_in_networks(host: str, excepted: str) -> bool:
    """Tell whether an address is in a network of NO_PROXY, such as ``10.0.0.0/8``."""
    from ipaddress import ip_address, ip_network

    try:
        address = ip_address(host)
    except ValueError:
        return False
    for text in (each.strip() for each in excepted.split(",") if "/" in each):
        try:
            if address in ip_network(text, strict=False):
                return True
        except ValueError:
            continue
    return False
