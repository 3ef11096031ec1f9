"""Decide which addresses a host may lead to: a private one only where the configuration names it.

A name is resolved once for a connection, and the connection goes to the very address that was
checked, so an answer of DNS that changes between check and use changes nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address, ip_network
from urllib.parse import urlsplit

from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import PrivateAddress

Address = IPv4Address | IPv6Address
Resolve = Callable[[str, int], list[str]]
_NAT64 = IPv6Network("64:ff9b::/96")
_TRIED = 4


def resolve(host: str, port: int) -> list[str]:
    """Ask the system for the addresses of a host, in the order to try.

    Raises:
        OSError: The name is unknown, or the name server does not answer.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


@dataclass(frozen=True, slots=True, kw_only=True)
class AddressRules:
    """Which hosts may lead to which addresses; everything public is allowed."""

    hosts: frozenset[str]
    """Names and addresses, lower case, that may be private."""
    networks: tuple[str, ...] = ()
    """Networks whose addresses any host may lead to."""
    resolve: Resolve = field(default=resolve)
    """Finds addresses; replaced in tests."""

    def addresses(self, host: str, port: int) -> list[str]:
        """Resolve a host and check every address it has.

        Raises:
            PrivateAddress: One of them is not public and not allowed.
            OSError: The name cannot be resolved.
        """
        found = self.resolve(host, port)
        if host.lower().strip("[]") not in self.hosts:
            for text in found:
                self._check(host, text)
        return found[:_TRIED]

    def _check(self, host: str, text: str) -> None:
        address = ip_address(text.partition("%")[0])
        kind = private_kind(address)
        if kind and not any(address in ip_network(network) for network in self.networks):
            raise PrivateAddress(host, text, kind)


def address_rules(source: SourceConfig, base_url: str) -> AddressRules:
    """Read the rules of a source.

    An address that `base_url`, `allowed_hosts` or a URL of `auth` writes out in digits names itself, link-local ones
    (where clouds keep their credentials) excepted; a name always needs `allow_private`.
    """
    written = [urlsplit(url).hostname or "" for url in (base_url, *source.auth.urls())]
    written += [_host(each) for each in source.allowed_hosts]
    hosts = {host for host in written if _names_itself(host)}
    networks = []
    for entry in source.allow_private:
        if "/" in entry:
            networks.append(entry)
        else:
            hosts.add(entry.lower())
            networks += [entry] if _address(entry) else []
    return AddressRules(hosts=frozenset(hosts), networks=tuple(networks))


def private_kind(address: Address) -> str | None:
    """Say what kind of non-public address this is; None for a public one.

    >>> private_kind(ip_address("169.254.169.254")), private_kind(ip_address("::ffff:10.0.0.1"))
    ('link-local', 'private')
    """
    address = _inner(address)
    if address.is_loopback:
        return "loopback"
    if address.is_link_local:
        return "link-local"
    if address.is_multicast or address.is_unspecified:
        return "no address of one server"
    return None if address.is_global else "private"


def _inner(address: Address) -> Address:
    """Take out an IPv4 address that an IPv6 address carries: the packet ends there."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address


def _names_itself(host: str) -> bool:
    address = _address(host)
    return address is not None and private_kind(address) != "link-local"


def _address(text: str) -> Address | None:
    try:
        return ip_address(text)
    except ValueError:
        return None


def _host(entry: str) -> str:
    """Take the host out of an entry of `allowed_hosts`, which may have a port."""
    return entry if _address(entry) else entry.rpartition(":")[0].strip("[]") or entry
