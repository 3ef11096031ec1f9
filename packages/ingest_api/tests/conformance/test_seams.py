"""Every built-in way of paging and of authenticating passes its suite."""

import orjson
import pytest
from tidemill_ingest_api.auth.api_key import ApiKeyAuth
from tidemill_ingest_api.auth.basic import BasicAuth
from tidemill_ingest_api.auth.bearer import BearerAuth
from tidemill_ingest_api.auth.none import NoAuth
from tidemill_ingest_api.auth.oauth2 import OAuth2Auth
from tidemill_ingest_api.http.messages import Response
from tidemill_ingest_api.paging import PageContent
from tidemill_ingest_api.paging.cursor import CursorPaging
from tidemill_ingest_api.paging.link_header import LinkHeaderPaging
from tidemill_ingest_api.paging.next_url import NextUrlPaging
from tidemill_ingest_api.paging.offset import OffsetPaging
from tidemill_ingest_api.paging.page import PageNumberPaging
from tidemill_ingest_api.paging.single import SinglePage
from tidemill_ingest_api.testing.seams import AuthSuite, PagingSuite

LAST, SIZE = 3, 2


def page_number(request, config):
    """Which of the three pages a request asks for, whatever way it says so."""
    match config:
        case OffsetPaging():
            return request.number(config.param, 0, place=config.place) // SIZE + 1
        case PageNumberPaging() | CursorPaging():
            return int(request.number(config.param, 1, place=config.place))
        case _:
            return request.number("page", 1)


@pytest.mark.parametrize(
    "config",
    [
        SinglePage(),
        LinkHeaderPaging(type="link_header"),
        PageNumberPaging(type="page", size=SIZE),
        PageNumberPaging(type="page", total_pages="pages"),
        PageNumberPaging(type="page", total_pages="pages", param="q.page", place="body"),
        OffsetPaging(type="offset", limit=SIZE),
        OffsetPaging(type="offset", limit=SIZE, total="total"),
        OffsetPaging(type="offset", limit=SIZE, total="total", place="body"),
        CursorPaging(type="cursor", path="next"),
        CursorPaging(type="cursor", header="X-Next"),
        CursorPaging(type="cursor", path="next", param="page.after", place="body"),
        NextUrlPaging(type="next_url"),
    ],
    ids=lambda config: f"{config.type}-{getattr(config, 'place', 'query')}",
)
class TestPaging(PagingSuite):
    @pytest.fixture(autouse=True)
    def kept_config(self, config):
        self.config_of_test = config

    def answer(self, request):
        number = page_number(request, self.config_of_test)
        url = f"https://api.example/x?page={number + 1}"
        is_last = number == LAST
        body = {"pages": LAST, "total": LAST * SIZE - 1, "next": None if is_last else number + 1}
        if isinstance(self.config_of_test, NextUrlPaging):
            body["next"] = None if is_last else url
        headers = {"link": "" if is_last else f'<{url}>; rel="next"'} | ({} if is_last else {"x-next": str(number + 1)})
        return PageContent(request=request, headers=headers, body=body, records=SIZE - 1 if is_last else SIZE)


@pytest.mark.parametrize(
    "config",
    [
        NoAuth(),
        BearerAuth(type="bearer", token="hush-token"),
        ApiKeyAuth(type="api_key", key="hush-key"),
        ApiKeyAuth(type="api_key", key="hush-key", place="query", name="access_key"),
        BasicAuth(type="basic", user="me", password="hush-word"),
        OAuth2Auth(type="oauth2", token_url="https://id.example/t", client_id="me", client_secret="hush-client"),
    ],
    ids=lambda config: f"{config.type}-{getattr(config, 'place', 'header')}",
)
class TestAuth(AuthSuite):
    def send(self, request):
        body = orjson.dumps({"access_token": "hush-access", "expires_in": 60})
        return Response(url=request.url, status=200, headers={}, body=body)
