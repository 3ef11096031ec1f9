"""Hosts that lead into our own network, on a real server that counts what reaches it."""

import socket
from collections.abc import Iterator
from ipaddress import ip_address

import httpx
import pytest
from tidemill_core.errors import ConfigError, PermanentError
from tidemill_core.retry import RetryPolicy
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.errors import PrivateAddress, UntrustedUrl, UpstreamUnavailable
from tidemill_ingest_api.fetching.addresses import AddressRules, address_rules, private_kind
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.transport import HttpxTransport
from tidemill_ingest_api.testing.fake_api import Answer, FakeApi


@pytest.fixture
def api() -> Iterator[FakeApi]:
    with FakeApi([{"id": 1}]) as api:
        yield api


def client_of(base_url, *, resolve=None, **more):
    source = SourceConfig(
        source="s",
        base_url=base_url,
        http={"retry": RetryPolicy(attempts=2, delay_s=0)},
        streams=[{"name": "x", "primary_key": ["id"], "fields": {"id": "int64"}}],
        **more,
    )
    rules = address_rules(source, base_url)
    if resolve is not None:
        rules = AddressRules(hosts=rules.hosts, networks=rules.networks, resolve=resolve)
    return Client(source, base_url, transport=HttpxTransport(source.http, rules))


def get(client):
    try:
        return client.get(f"{client.base_url}/all", stream="x").value
    finally:
        client.close()


def port_of(api):
    return int(api.base_url.rpartition(":")[2])


def test_a_name_that_leads_to_loopback_is_refused_after_resolving_and_nothing_is_sent(api):
    with pytest.raises(PrivateAddress, match=r"not public .loopback.*allow_private") as caught:
        get(client_of(f"http://localhost:{port_of(api)}"))

    assert isinstance(caught.value, PermanentError)
    assert [] == api.seen


@pytest.mark.parametrize("spelling", ["2130706433", "0x7f000001", "127.1", "0177.0.0.1"])
def test_addresses_in_odd_spelling_are_names_too(api, spelling):
    with pytest.raises((PrivateAddress, UntrustedUrl)):
        get(client_of(f"http://{spelling}:{port_of(api)}"))

    assert [] == api.seen


@pytest.mark.parametrize("allowed", ["localhost", "LOCALHOST", "127.0.0.1", "127.0.0.0/8"])
def test_allow_private_names_hosts_addresses_or_networks(api, allowed):
    both = [allowed, "::1"] if allowed.startswith("127") else [allowed]

    assert [{"id": 1}] == get(client_of(f"http://localhost:{port_of(api)}", allow_private=both))


def test_an_address_written_out_in_base_url_names_itself_and_no_other(api):
    assert [{"id": 1}] == get(client_of(api.base_url))
    with pytest.raises(PrivateAddress, match="link-local"):
        get(client_of("http://169.254.169.254"))


def test_a_redirect_to_an_allowed_host_that_leads_inside_is_refused(api):
    api.fail(Answer(status=302, headers={"Location": f"http://localhost:{port_of(api)}/all"}))

    with pytest.raises(PrivateAddress, match="localhost"):
        get(client_of(api.base_url, allowed_hosts=["localhost"]))

    assert 1 == len(api.seen)


class ChangingDns:
    """Gives other addresses each time it is asked."""

    def __init__(self, *answers):
        self.answers, self.asked = list(answers), 0

    def __call__(self, host, port):  # the contract
        self.asked += 1
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_dns_that_changes_between_check_and_use_changes_nothing(api):
    dns = ChangingDns(["127.0.0.2"], ["127.0.0.1"])
    client = client_of(f"http://api.example:{port_of(api)}", resolve=dns, allow_private=["127.0.0.2"])

    # The checked address is the one that is used: nobody listens there, and our server hears nothing.
    with pytest.raises((UpstreamUnavailable, PrivateAddress)):
        client.get(f"{client.base_url}/all", stream="x")
    client.close()

    assert [] == api.seen
    assert 2 == dns.asked  # once for each connection that was tried


def test_a_client_that_checks_first_and_resolves_again_would_have_been_let_in(api, monkeypatch):
    dns = ChangingDns(["93.184.215.14"], ["127.0.0.1"])
    real = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, port, *a, **k: real(dns(host, port)[0], port, *a, **k))

    checked = socket.getaddrinfo("api.example", port_of(api))[0][4][0]
    answer = httpx.get(f"http://api.example:{port_of(api)}/all", trust_env=False)

    assert private_kind(ip_address(checked)) is None
    assert 200 == answer.status_code


def test_one_private_address_among_public_ones_is_enough_to_refuse(api):
    dns = ChangingDns(["93.184.215.14", "127.0.0.1"])

    with pytest.raises(PrivateAddress):
        get(client_of(f"http://api.example:{port_of(api)}", resolve=dns))

    assert [] == api.seen


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("8.8.8.8", None),
        ("2606:4700::1111", None),
        ("10.0.0.1", "private"),
        ("100.64.0.1", "private"),
        ("fd00::1", "private"),
        ("127.8.8.8", "loopback"),
        ("::1", "loopback"),
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("0.0.0.0", "no address of one server"),
        ("224.0.0.1", "no address of one server"),
        ("::ffff:127.0.0.1", "loopback"),
        ("64:ff9b::a9fe:a9fe", "link-local"),
        ("2002:7f00:1::", "loopback"),
    ],
)
def test_addresses_are_told_apart_also_inside_others(text, kind):
    assert kind == private_kind(ip_address(text))


@pytest.mark.parametrize("entry", ["http://localhost", "localhost:80", "10.0.0.0/33", "10.0.0.1/8", ""])
def test_what_is_no_host_is_refused_in_the_configuration(entry):
    with pytest.raises((ConfigError, ValueError), match="allow_private"):
        client_of("https://api.example", allow_private=[entry])
