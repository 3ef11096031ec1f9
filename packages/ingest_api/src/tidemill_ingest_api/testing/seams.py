"""The suites every way of paging and every way to authenticate passes: subclass one and give its fixtures."""

# ruff: noqa: D102  # a test's name is its sentence

from __future__ import annotations

import pickle

import pytest

from tidemill_ingest_api.auth import AUTHS, Auth, AuthConfig, AuthContext, open_auth
from tidemill_ingest_api.http.messages import Request, Response, check_header
from tidemill_ingest_api.http.urls import origin
from tidemill_ingest_api.paging import PAGINGS, PageContent, Pager, PageRequest, Paging, open_pager

_LOOP = 1000


class PagingSuite:
    """The contract of `Pager`; a subclass gives `config`, and `answer` as its API would."""

    @pytest.fixture
    def config(self) -> Paging:
        """Give the settings of a list that ends."""
        pytest.fail("a subclass must give the fixture `config`")

    @pytest.fixture
    def pager(self, config: Paging) -> Pager:
        """Give the way, opened from its settings."""
        return open_pager(config)

    def answer(self, request: PageRequest) -> PageContent:
        """Answer a request as an API of this kind does, with three pages or fewer."""
        pytest.fail(f"a subclass must give `answer`, asked for {request.url}")

    def test_its_settings_are_found_by_their_type(self, config: Paging) -> None:
        assert PAGINGS.config_types()[config.type] is type(config)

    def test_following_ends_and_meets_no_page_twice(self, pager: Pager) -> None:
        request: PageRequest | None = pager.first(PageRequest(url="https://api.example/x?kept=1"))
        seen: list[str] = []
        while request is not None and len(seen) < _LOOP:
            seen.append(repr(request))
            request = pager.following(self.answer(request))

        assert len(seen) < _LOOP
        assert len(set(seen)) == len(seen)

    def test_pages_that_are_listed_are_those_that_following_meets(self, pager: Pager) -> None:
        first = pager.first(PageRequest(url="https://api.example/x?kept=1"))
        followed, request = [], pager.following(self.answer(first))
        while request is not None:
            followed.append(request)
            request = pager.following(self.answer(request))
        listed = list(pager.others(self.answer(first)))

        assert listed in ([], followed)

    def test_it_remembers_nothing_between_pages(self, config: Paging, pager: Pager) -> None:
        content = self.answer(pager.first(PageRequest(url="https://api.example/x")))

        assert [pager.following(content)] * 2 == [pager.following(content), open_pager(config).following(content)]


class AuthSuite:
    """The contract of `Auth`; a subclass gives `config`, and `send` where its way asks for credentials."""

    @pytest.fixture
    def config(self) -> AuthConfig:
        """Give settings with credentials."""
        pytest.fail("a subclass must give the fixture `config`")

    def send(self, request: Request) -> Response:
        """Answer a request for credentials."""
        pytest.fail(f"{request.url} was asked for credentials")

    @pytest.fixture
    def auth(self, config: AuthConfig) -> Auth:
        """Give the way, opened from its settings."""
        return open_auth(config, AuthContext(send=self.send, clock=lambda: 0.0))

    def test_its_settings_are_found_by_their_type(self, config: AuthConfig) -> None:
        assert AUTHS.config_types()[config.type] is type(config)

    def test_a_request_stays_what_it_was_but_for_its_credentials(self, auth: Auth) -> None:
        plain = Request(url="https://api.example/x?a=1", headers={"accept": "x"}, method="POST", body=b"{}")
        sent = auth.apply(plain)

        assert (sent.method, sent.body, sent.headers["accept"]) == ("POST", b"{}", "x")
        assert origin(sent.url) == origin(plain.url)
        assert auth.clean(sent.url) == plain.url

    def test_its_headers_can_be_sent(self, auth: Auth) -> None:
        for name, value in auth.apply(Request(url="https://api.example/x", headers={})).headers.items():
            check_header(name, value)
            assert name == name.lower()

    def test_what_it_sends_is_known_as_a_secret(self, auth: Auth) -> None:
        sent = auth.apply(Request(url="https://api.example/x", headers={}))
        added = [*sent.headers.values(), sent.url.removeprefix("https://api.example/x")]

        assert all(any(secret and secret in text for secret in auth.secrets) for text in added if text)

    def test_its_identity_is_the_same_for_the_same_settings_and_shows_in_no_settings(
        self, config: AuthConfig, auth: Auth
    ) -> None:
        again = open_auth(config, AuthContext(send=self.send))

        assert auth.identity == again.identity
        assert pickle.loads(pickle.dumps(config)) == config  # noqa: S301  # our own bytes
        assert not any(secret in repr(config) for secret in auth.secrets if secret)


__all__ = ["AuthSuite", "PagingSuite"]
