"""One shape for six packages: the same files, commands and words, and the same mistake ends the same way.

What a package lacks is listed in ``GAPS`` with its reason; a gap that has closed must
leave the list, so that the list only gets shorter.
"""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import click
import pytest
from tidemill_core.cli import GROUPS

ROOT = Path(__file__).parents[1]
PACKAGES = ("core", "ingest_api", "stream", "loader", "sync", "lineage")
GROUP_OF = {"core": "dag", "ingest_api": "ingest", "stream": "stream", "loader": "load", "sync": "sync"}
VERBS = ("run", "plan", "status", "validate", "schema")
FILES = ("__init__.py", "py.typed", "config.py", "errors.py", "cli.py", "metrics.py", "defs", "testing")
GAPS = {
    ("core", "metrics.py"): "the kernel's are in telemetry/ and defs/metrics/",
    ("loader", "metrics.py"): "a load is one run; what it did is in its result and its ledger",
    ("lineage", "metrics.py"): "what is lost is counted in the outbox",
    ("lineage", "config.py"): "its settings are those of its resource",
    ("loader", "testing"): "one module: testing.py",
    ("stream", "plan"): "`validate` prints what would be made",
}


def source_of(package: str) -> Path:
    return ROOT / "packages" / package / "src" / f"tidemill_{package}"


def missing_files(folder: Path) -> set[str]:
    """What is not there: a file may be a folder of the same name."""
    return {name for name in FILES if not (folder / name).exists() and not (folder / name.removesuffix(".py")).is_dir()}


def missing_verbs(group: click.Group) -> set[str]:
    return set(VERBS) - set(group.commands)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_has_the_files_that_every_package_has(package):
    assert {name for at, name in GAPS if at == package and name in FILES} == missing_files(source_of(package))


@pytest.mark.parametrize(("package", "name"), GROUP_OF.items())
def test_a_group_has_the_verbs_that_every_group_has(package, name):
    assert {verb for at, verb in GAPS if at == package and verb in VERBS} == missing_verbs(GROUPS.get(name))


def test_a_folder_or_group_that_differs_is_noticed(tmp_path):
    for name in set(FILES) - {"errors.py"}:
        (tmp_path / name).touch()

    assert {"errors.py"} == missing_files(tmp_path)
    assert {"plan", "status", "schema"} == missing_verbs(
        click.Group(commands={verb: click.Command(verb) for verb in ("run", "validate", "extra")})
    )


def commands(group: click.Command, path: tuple[str, ...]):
    """Every command below a group, with its words."""
    if not isinstance(group, click.Group):
        yield path, group
        return
    for name, command in group.commands.items():
        yield from commands(command, (*path, name))


ALL = [each for name in GROUPS.names() for each in commands(GROUPS.get(name), (name,))]


def odd_options(path: tuple[str, ...], command: click.Command) -> list[str]:
    """What of a command's options is said another way than everywhere."""
    found = []
    for option in command.params:
        words = " ".join((*path, option.name or ""))
        if "--json" in option.opts and option.name != "as_json":
            found.append(f"{words}: --json is as_json")
        if "--config" in option.opts and "-c" not in option.opts:
            found.append(f"{words}: --config is also -c")
        if isinstance(option.type, click.IntRange | click.FloatRange):
            found.append(f"{words}: a number out of bounds ends with 2; use Bounded")
        if isinstance(option.type, click.Path) and option.type.exists:
            found.append(f"{words}: a missing file ends with 2; let the reader refuse it")
        if isinstance(option, click.Option) and not option.help:
            found.append(f"{words}: no help")
    return found


def test_options_of_the_same_meaning_have_the_same_form_in_all_commands():
    assert [] == [fault for path, command in ALL for fault in odd_options(path, command)]
    assert len(ALL) > 40


def test_an_option_of_another_form_is_noticed():
    odd = click.Command(
        "odd",
        params=[
            click.Option(["--json"], help="x"),
            click.Option(["--config"], help="x"),
            click.Option(["--limit"], type=click.IntRange(1), help="x"),
            click.Argument(["file"], type=click.Path(exists=True)),
            click.Option(["--silent"]),
        ],
    )

    assert 5 == len(odd_options(("odd",), odd))


def run(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("TIDEMILL_")}
    return subprocess.run(
        [str(Path(sys.executable).with_name("tidemill")), *words],
        cwd=folder,
        env={**env, "TIDEMILL_HOME": str(folder / "home")},
        capture_output=True,
        text=True,
        timeout=120,
    )


CONFIGURED = [
    ("ingest", "validate"),
    ("ingest", "plan"),
    ("stream", "validate"),
    ("stream", "run"),
    ("stream", "drain"),
    ("stream", "status"),
    ("stream", "dlq", "list"),
    ("load", "validate", "-c"),
    ("load", "plan", "-c"),
    ("load", "run", "-c"),
    ("sync", "validate", "-c"),
    ("sync", "plan", "-c"),
    ("sync", "run", "-c"),
    ("sync", "verify", "-c"),
    ("sync", "serve", "-c"),
]


@pytest.mark.parametrize("words", CONFIGURED, ids=" ".join)
def test_a_configuration_that_is_not_there_ends_every_command_alike(words, tmp_path):
    done = run(tmp_path, *words, "gone.yaml")

    assert (3, "", "error: gone.yaml: cannot be read: No such file or directory") == (
        done.returncode,
        done.stdout,
        done.stderr.strip(),
    )


def test_a_graph_and_a_dag_file_that_are_not_there_end_with_3_too(tmp_path):
    graph = run(tmp_path, "lineage", "show", "--graph", "gone.json")
    dag = run(tmp_path, "dag", "validate", "gone.yaml")

    assert (3, 3) == (graph.returncode, dag.returncode)
    assert graph.stderr.startswith("error: gone.json: cannot be read: No such file or directory")
    assert "gone.yaml" in dag.stderr


@pytest.mark.parametrize("words", [*CONFIGURED, ("dag", "validate")], ids=" ".join)
def test_a_key_that_no_configuration_has_ends_every_command_alike(words, tmp_path):
    (tmp_path / "odd.yaml").write_text("nonsense: 1\n")

    done = run(tmp_path, *words, "odd.yaml")

    assert 3 == done.returncode
    assert re.search(r"^error: odd\.yaml:1:\d+: nonsense: unknown key; ", done.stderr, re.MULTILINE)


OUT_OF_BOUNDS = [
    (("load", "plan", "a.csv", "-t", "a", "--workers", "0"), "workers: Input should be greater than or equal to 1"),
    (("sync", "plan", "a", "b", "--workers", "0"), "workers: Input should be greater than or equal to 1"),
    (("sync", "status", "--limit", "0"), "limit: Input should be greater than or equal to 1"),
    (("load", "rejects", "a", "--limit", "0"), "limit: Input should be greater than or equal to 1"),
    (("stream", "dlq", "list", "a.yaml", "--limit", "0"), "limit: Input should be greater than or equal to 1"),
    (("ingest", "status", "a.yaml", "--limit", "0"), "limit: Input should be greater than or equal to 1"),
    (("lineage", "upstream", "a", "--depth", "0"), "depth: Input should be greater than or equal to 1"),
    (("stream", "run", "a.yaml", "--health-port", "65536"), "health_port: Input should be less than or equal to 65535"),
    (("sync", "serve", "--port", "65536"), "port: Input should be less than or equal to 65535"),
    (("metrics", "serve", "--port", "65536"), "port: Input should be less than or equal to 65535"),
]


@pytest.mark.parametrize(
    ("words", "fault"), OUT_OF_BOUNDS, ids=lambda value: " ".join(value[:2]) if isinstance(value, tuple) else ""
)
def test_a_number_out_of_bounds_ends_every_command_alike(words, fault, tmp_path):
    done = run(tmp_path, *words)

    assert (3, f"error: options: {fault}") == (done.returncode, done.stderr.strip())


def test_a_word_in_place_of_a_number_is_a_usage_error_in_every_command(tmp_path):
    ends = {run(tmp_path, *words[:-1], "many").returncode for words, _ in OUT_OF_BOUNDS}

    assert {2} == ends


@pytest.mark.parametrize("name", GROUP_OF.values())
def test_every_group_prints_the_schema_of_its_configuration(name, tmp_path):
    done = run(tmp_path, name, "schema")

    schema = json.loads(done.stdout)
    assert {"properties", "$defs"} & set(schema)
    assert 0 == done.returncode


def handmade_documents(source: str) -> list[int]:
    """Lines that print a JSON document by themselves instead of by `emit`."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "click.echo"
        and any(re.match(r"(json|orjson|json_module)\.dumps\(", ast.unparse(argument)) for argument in node.args)
    ]


HANDMADE = {
    "core": "the founder's commands are under way",
    "ingest_api": "`preview`, `key` and `schema` print documents that are no results",
}


@pytest.mark.parametrize("package", [each for each in PACKAGES if each not in HANDMADE])
def test_json_is_printed_in_one_form(package):
    assert [] == handmade_documents((source_of(package) / "cli.py").read_text())


def test_a_document_made_by_hand_is_noticed():
    assert [1] == handmade_documents("click.echo(json.dumps(found))")


def metric_names(package: str) -> set[str]:
    from tidemill_core.telemetry.metrics import Metric

    module = importlib.import_module(f"tidemill_{package}.metrics")
    return {value.name for value in vars(module).values() if isinstance(value, Metric)}


@pytest.mark.parametrize("package", ["sync"])
def test_metrics_are_named_by_their_package(package):
    names = metric_names(package)

    assert names
    assert [] == [name for name in names if not name.startswith(f"tidemill_{package}_")]


RESULTS = [
    "tidemill_loader.engine:LoadResult",
    "tidemill_stream.running.draining:DrainResult",
    "tidemill_sync.result:SyncResult",
    "tidemill_sync.verification:VerifyReport",
]


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_is_frozen_and_says_itself_as_values_and_in_a_sentence(name):
    module, kind = name.split(":")
    result = getattr(importlib.import_module(module), kind)

    assert result.__dataclass_params__.frozen
    assert callable(result.as_dict)
    assert callable(result.sentence)
