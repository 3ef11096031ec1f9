"""The YAML of the documentation is valid, and the commands in it exist with their options."""

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest
import yaml
from tidemill_core.cli import GROUPS, cli
from tidemill_core.config import ConfigFaults, parse_documents, validate

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for page in [
        *ROOT.glob("*.md"),
        *ROOT.glob("docs/**/*.md"),
        *ROOT.glob("packages/*/README.md"),
        *ROOT.glob("deploy/*.md"),
    ]
    if "adr" not in page.parts and page.name != "commands.md"  # the generated help texts
)
_BLOCK = re.compile(r"^```(yaml|sh|console)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ENDS = {"|", ";", "&&", "||", ">", ">>", "2>", "<", "&"}


def blocks(page: Path, *kinds: str) -> list[tuple[int, str]]:
    """The blocks of these kinds, each with its first line's number."""
    text = page.read_text(encoding="utf-8")
    return [(text.count("\n", 0, found.start()) + 2, found[2]) for found in _BLOCK.finditer(text) if found[1] in kinds]


def _dag():
    from tidemill_core.dag.spec import DagSpec

    return DagSpec


def _source():
    from tidemill_ingest_api.config import SourceConfig

    return SourceConfig


def _pipelines():
    from tidemill_stream.config import PipelinesConfig

    return PipelinesConfig


def _loads():
    from tidemill_loader.config import LoadsFile

    return LoadsFile


# A file of each kind is known by its keys; a block with fewer is a part of a file.
MODELS = {("name", "tasks"): _dag, ("base_url", "streams"): _source, ("pipelines",): _pipelines, ("loads",): _loads}


def is_component(value: object) -> bool:
    return isinstance(value, dict) and str(value.get("type", "")).startswith("tidemill_") and "attributes" in value


def model_of(value: object):
    """The model that a YAML block must fit, where the block is a whole file."""
    keys = set(value) if isinstance(value, dict) else set()
    return next((model() for wanted, model in MODELS.items() if keys.issuperset(wanted)), None)


def yaml_fault(text: str, where: str) -> str | None:
    """What is wrong with a block; a part of a file need only be YAML."""
    try:
        value = yaml.safe_load(text)
        if is_component(value):
            package, name = value["type"].rsplit(".", 1)
            component = getattr(importlib.import_module(f"{package}.defs"), name)
            component.from_attributes_dict(attributes=value["attributes"])
        elif (model := model_of(value)) is not None:
            # A variable that the reader sets has some value.
            for document in parse_documents(text, file=where, env=_Set()):
                validate(document, model)
    except (yaml.YAMLError, ConfigFaults) as error:
        return f"{where}: {error}"
    return None


class _Set(dict):
    def __missing__(self, name: str) -> str:
        return "https://set.example.com"

    def __contains__(self, name: object) -> bool:
        return True

    def get(self, name: str, default: str | None = None) -> str:
        return self[name]


def commands(text: str) -> list[list[str]]:
    """Every `tidemill ...` of a block, in words, without what the shell takes."""
    found = []
    for line in text.replace("\\\n", " ").splitlines():
        try:
            words = shlex.split(line.removeprefix("$ ").strip(), comments=True)
        except ValueError:  # a line of output, not of input
            continue
        if "tidemill" not in words:
            continue
        at = words.index("tidemill")
        if any("=" not in word and word not in {"uv", "run", "exec", "nohup"} for word in words[:at]):
            continue
        words = words[at + 1 :]
        end = next((place for place, word in enumerate(words) if word in _ENDS or word.endswith(";")), len(words))
        found.append(words[:end])
    return found


def command_fault(words: list[str]) -> str | None:
    """What of a command line does not exist: its group, its verb or an option."""
    command: click.Command = cli
    options = {name for option in cli.params for name in (*option.opts, *option.secondary_opts)} | {"--help", "-h"}
    for word in words:
        if word.startswith("-") and not re.match(r"-\d", word):
            if word.split("=")[0] not in options:
                return f"tidemill {' '.join(words)}: no option {word}"
        elif isinstance(command, click.Group):
            below = GROUPS.get(word) if command is cli and word in GROUPS.names() else command.commands.get(word)
            if below is None:
                return f"tidemill {' '.join(words)}: no command {word!r}"
            command = below
            options |= {name for option in command.params for name in (*option.opts, *option.secondary_opts)}
            if command.context_settings.get("ignore_unknown_options"):
                return None
    return None


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_yaml_of_a_page_is_valid(page, monkeypatch):
    for name in re.findall(r"env\.(\w+)|env\(['\"](\w+)", page.read_text(encoding="utf-8")):
        monkeypatch.setenv("".join(name), "set")
    faults = [yaml_fault(text, f"{page.name}:{line}") for line, text in blocks(page, "yaml")]

    assert [] == [fault for fault in faults if fault]


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "sh", "console")], ids=lambda page: str(page.relative_to(ROOT))
)
def test_the_commands_of_a_page_exist_with_their_options(page):
    faults = [
        f"{page.name}:{line}: {fault}"
        for line, text in blocks(page, "sh", "console")
        for words in commands(text)
        if (fault := command_fault(words))
    ]

    assert [] == faults


def test_enough_of_the_documentation_is_looked_at():
    lines = [words for page in PAGES for _, text in blocks(page, "sh", "console") for words in commands(text)]

    values = [yaml.safe_load(text) for page in PAGES for _, text in blocks(page, "yaml")]
    assert len(lines) > 40
    assert sum(is_component(each) or model_of(each) is not None for each in values) > 8


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("$ tidemill sync run a b --prune | cat", None),
        ("TIDEMILL_HOME=x uv run tidemill -v load plan a.csv -t a", None),
        ("tidemill snyc run a b", "no command 'snyc'"),
        ("tidemill sync rnu a b", "no command 'rnu'"),
        ("tidemill sync run a b \\\n  --purge", "no option --purge"),
    ],
)
def test_a_command_that_does_not_exist_is_noticed(line, fault):
    (found,) = [command_fault(words) for words in commands(line)]

    assert (found is None) if fault is None else found.endswith(fault)


@pytest.mark.parametrize(
    "text",
    [
        "type: tidemill_sync.SyncComponent\nattributes:\n  sauce: lake://\n",
        "name: a\ntasks:\n  one: {comand: 'true'}\n",
        "base_url: https://a.example.com\nsource: a\nstreams: [{name: a, paht: /a}]\n",
        "a: [1\n",
    ],
)
def test_a_wrong_block_is_noticed(text):
    assert yaml_fault(text, "page.md:1")
