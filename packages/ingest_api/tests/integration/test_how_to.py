"""The blocks of the how-to page are what the package accepts."""

import re
from pathlib import Path

import pytest
import yaml
from tidemill_ingest_api.config import SourceConfig
from tidemill_ingest_api.paging import PageContent, PageRequest

PAGE = Path(__file__).parents[4] / "docs/how-to/ingest-an-api.md"
SECRETS = {
    "HELPDESK_TOKEN": "t",
    "TOKEN": "t",
    "KEY": "k",
    "PASSWORD": "p",
    "CLIENT_SECRET": "c",
    "REFRESH_TOKEN": "r",
    "HASH_KEY": "k" * 16,
}
FIELDS = {"id": "int64", "updated_at": "timestamp"}
STREAM = {"name": "tickets", "path": "/tickets", "records": "data", "primary_key": ["id"], "fields": FIELDS}
SOURCE = {"source": "helpdesk", "base_url": "https://helpdesk.example.com/api", "streams": [STREAM]}


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE.read_text(), re.DOTALL)


def filled(text):
    return re.sub(r"\$\{(\w+)\}", lambda found: SECRETS[found[1]], text)


@pytest.mark.parametrize("block", blocks("yaml"))
def test_every_yaml_block_is_a_source_or_a_part_of_one(block):
    indent = len(block) - len(block.lstrip(" "))
    found = yaml.safe_load(filled("\n".join(line[indent:] for line in block.splitlines())))
    whole = SOURCE | found if not indent else {**SOURCE, "streams": [STREAM | found]}

    assert SourceConfig.model_validate(whole).streams


@pytest.mark.parametrize("text", re.findall(r"`(\{type: [^`]*\})`", PAGE.read_text()))
def test_every_way_in_the_tables_is_accepted(text):
    found = yaml.safe_load(filled(text))
    is_auth = found["type"] in {"bearer", "api_key", "basic", "oauth2"}
    whole = SOURCE | {"auth": found} if is_auth else {**SOURCE, "streams": [STREAM | {"paginate": found}]}

    assert SourceConfig.model_validate(whole).streams


def test_the_way_of_ones_own_pages_until_its_word():
    (block,) = blocks("python")
    names: dict[str, object] = {"__name__": "of_the_page"}
    exec(compile(block, str(PAGE), "exec", dont_inherit=True), names)
    pager = names["UntilStop"](names["UntilStopPaging"](type="until_stop"))
    request = PageRequest(url="https://a.example/x")

    more = pager.following(PageContent(request=request, headers={}, body={"say": "go"}, records=1))
    end = pager.following(PageContent(request=more, headers={}, body={"say": "stop"}, records=1))

    assert ("https://a.example/x?step=1", None) == (more.url, end)
