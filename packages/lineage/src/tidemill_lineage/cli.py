"""`tidemill lineage`: look at the graph, ask it questions, send it elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click
from tidemill_core.cli_output import Bounded, emit

if TYPE_CHECKING:
    from tidemill_lineage.emitters._base import Emitter, Target
    from tidemill_lineage.events import EventLog
    from tidemill_lineage.graph import Graph
    from tidemill_lineage.model import Edge, Run
    from tidemill_lineage.queries import Lineage

F = TypeVar("F", bound=Callable[..., Any])


def _options(function: F) -> F:
    """Options of every verb."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        click.option(
            "--graph",
            "path",
            type=click.Path(path_type=Path),
            help="A .sqlite store or a .json document; default: the home's.",
        ),
    ):
        function = option(function)
    return function


@click.group()
def lineage() -> None:
    """See where data came from, and what depends on it.

    NAME is a dataset (its URN, its asset key, or an end of either) or NAME#COLUMN.
    """


@lineage.command()
@click.argument("name", required=False)
@_options
def show(name: str | None, path: Path | None, *, as_json: bool) -> None:
    """List the datasets, or one dataset's columns and edges."""
    if name is None:
        graph = _load(path)
        rows = [
            {"dataset": each.urn, "asset": each.asset_key, "columns": len(each.columns)}
            for each in graph.datasets.values()
        ]
        _print(
            rows, as_json=as_json, line=lambda row: f"{row['asset'] or '-':32} {row['columns']:>4}  {row['dataset']}"
        )
        return
    asked = _ask(path)
    node = asked.node(name)
    edges = sorted({*asked.incoming(node), *asked.outgoing(node)})
    _print([_edge(edge) for edge in edges], as_json=as_json, line=_edge_line)


@lineage.command()
@click.argument("name")
@click.option("--depth", type=Bounded(1), help="How many steps at most.")
@_options
def upstream(name: str, depth: int | None, path: Path | None, *, as_json: bool) -> None:
    """List what NAME is made from, nearest first."""
    _print(_ask(path).upstream(name, depth=depth), as_json=as_json, line=str)


@lineage.command()
@click.argument("name")
@click.option("--depth", type=Bounded(1), help="How many steps at most.")
@_options
def downstream(name: str, depth: int | None, path: Path | None, *, as_json: bool) -> None:
    """List what is made from NAME, nearest first."""
    _print(_ask(path).downstream(name, depth=depth), as_json=as_json, line=str)


@lineage.command()
@click.argument("name")
@_options
def impact(name: str, path: Path | None, *, as_json: bool) -> None:
    """Say which columns change with NAME, and whether its values flow there (DIRECT)."""
    found = [{"name": each, "kind": kind} for each, kind in _ask(path).impact(name).items()]
    _print(found, as_json=as_json, line=lambda row: f"{row['kind']:9} {row['name']}")


@lineage.command("path")
@click.argument("source")
@click.argument("target")
@_options
def path_command(source: str, target: str, path: Path | None, *, as_json: bool) -> None:
    """Show a shortest way from SOURCE to TARGET; exit 1 if there is none."""
    edges = _ask(path).path(source, target)
    _print([_edge(edge) for edge in edges], as_json=as_json, line=_edge_line)
    if not edges:
        from tidemill_lineage.errors import GraphError

        raise GraphError(f"nothing leads from {source} to {target}")


@lineage.command()
@click.argument("before")
@click.argument("after")
@_options
def diff(before: str, after: str, path: Path | None, *, as_json: bool) -> None:
    """Compare two runs (ids, see `tidemill lineage runs`) or two graph documents."""
    from dataclasses import fields

    from tidemill_lineage.graph import diff as compare

    found = compare(_run_or_file(before, path), _run_or_file(after, path))
    values: dict[str, list[Any]] = {
        each.name: [item if isinstance(item, str) else _edge(item) for item in getattr(found, each.name)]
        for each in fields(found)
    }
    if as_json:
        emit(values, as_json=True)
        return
    for name, items in values.items():
        sign = "+" if name.endswith("added") else "-"
        for item in items:
            click.echo(f"{sign} {item if isinstance(item, str) else _edge_line(item)}")


@lineage.command()
@_options
def runs(path: Path | None, *, as_json: bool) -> None:
    """List the runs whose events are kept, oldest first."""
    _print(_log(path).run_ids(), as_json=as_json, line=str)


@lineage.command()
@_options
def rebuild(path: Path | None, *, as_json: bool) -> None:
    """Build the graph anew from the kept events: jobs and datasets that no longer run are forgotten."""
    from tidemill_lineage.collect import open_store, store_path, write_document
    from tidemill_lineage.errors import GraphError

    log = _log(path)
    runs = list(log.read())
    if not runs:
        raise GraphError(f"no events are kept in {log.folder}: the graph is left as it is")
    file = _path(path)
    store = open_store(file.with_suffix(".json"), log)
    try:
        store.replace(runs)
        graph = store.graph()
    finally:
        store.close()
    write_document(graph, store_path(file).with_suffix(".json"))
    facts = {"datasets": len(graph.datasets), "edges": len(graph.edges)}
    _print([facts], as_json=as_json, line=lambda row: f"{row['datasets']} datasets, {row['edges']} edges")


@lineage.command()
@click.argument("output", type=click.Path(path_type=Path), required=False)
@_options
def html(output: Path | None, path: Path | None, *, as_json: bool) -> None:
    """Write the graph as one self-contained HTML page."""
    from tidemill_lineage.html import write_page

    target = output or _path(path).with_suffix(".html")
    write_page(_load(path), target)
    _print([str(target)], as_json=as_json, line=str)


@lineage.command()
@click.argument("where", metavar="NAME")
@click.option("--url", help="Where it writes; default: the targets of that name in the settings.")
@click.option("--run", "run_id", help="Only this run's; default all runs whose events are kept.")
@_options
def push(where: str, url: str | None, run_id: str | None, path: Path | None, *, as_json: bool) -> None:
    """Send what was recorded to the emitter NAME (neo4j, openlineage, json, sqlite, or an installed one).

    Sending it again changes nothing. Settings beside the URL are read from TIDEMILL_LINEAGE_TARGETS.
    """
    from tidemill_lineage.collect import resolved
    from tidemill_lineage.emitters._base import open_target
    from tidemill_lineage.graph import stored_names

    emitters = [open_target(each) for each in _targets(where, url)]
    names = stored_names((each.asset_key, urn) for urn, each in _load(path).datasets.items())
    found = list(resolved(_log(path).read(run_id), names))
    for emitter in emitters:
        _send(where, emitter, found)
    _print([{"pushed": len(found), "to": where}], as_json=as_json, line=lambda row: f"{row['pushed']} runs to {where}")


@lineage.command()
@_options
def validate(path: Path | None, *, as_json: bool) -> None:
    """Check the graph document; exit 1 if anything in it is inconsistent."""
    from tidemill_lineage.document import faults, stale
    from tidemill_lineage.errors import GraphError

    graph = _load(path)
    found = faults(graph)
    _print(found, as_json=as_json, line=str)
    gone = stale(graph)
    if gone:
        click.echo(f"{len(gone)} columns are in edges but no longer in their datasets: {', '.join(gone)}", err=True)
    orphans = graph.orphans()
    if orphans:
        click.echo(f"{len(orphans)} datasets that nothing reads or writes: {', '.join(orphans)}", err=True)
    if found:
        raise GraphError(f"{len(found)} faults in {_path(path)}")


def _print(rows: Iterable[Any], *, as_json: bool, line: Callable[[Any], str]) -> None:
    values = list(rows)
    if as_json:
        emit(values, as_json=True)
        return
    for each in values:
        click.echo(line(each))


def _path(path: Path | None) -> Path:
    from tidemill_core.settings import Settings

    from tidemill_lineage.hooks import lineage_folder

    return path or lineage_folder(Settings.from_env()) / "lineage.json"


def _ask(path: Path | None) -> Lineage:
    """Open the graph for a question: the store where there is one, else the document."""
    from tidemill_lineage.collect import store_path
    from tidemill_lineage.emitters.json_file import load_graph
    from tidemill_lineage.stored_graph import StoredGraph

    file = path or store_path(_path(None))
    if file.suffix == ".sqlite" and file.exists():
        return StoredGraph(file)
    return load_graph(_path(path))


def _load(path: Path | None) -> Graph:
    """Read the whole graph."""
    from tidemill_lineage.stored_graph import StoredGraph

    found = _ask(path)
    if isinstance(found, StoredGraph):
        return found.graph()
    return cast("Graph", found)


def _log(path: Path | None) -> EventLog:
    from tidemill_lineage.events import EventLog

    return EventLog(_path(path).parent / "events")


def _run_or_file(name: str, path: Path | None) -> Graph:
    from tidemill_lineage.emitters.json_file import load_graph
    from tidemill_lineage.graph import Graph, merge

    if Path(name).is_file():
        return load_graph(name)
    return merge(Graph(), _log(path).read(name))


def _targets(where: str, url: str | None) -> list[Target]:
    """Find the targets that a push goes to: those of the settings, or the one at `url` with their settings."""
    from tidemill_core.errors import ConfigError
    from tidemill_core.settings import Settings

    from tidemill_lineage.emitters._base import EMITTERS, parse_target
    from tidemill_lineage.settings import neo4j_target, targets_of

    EMITTERS.get(where)  # an unknown name is told before anything is read
    Settings.from_env()  # and so is a misspelt variable
    known = [each for each in targets_of() if each.type == where and url in (None, each.url)]
    if known:
        return known
    if url is not None:
        return [neo4j_target(url) if where == "neo4j" else parse_target({"type": where, "url": url}, where="--url")]
    shorthand = f" or TIDEMILL_{where.upper()}_URL" if where in ("neo4j", "openlineage") else ""
    raise ConfigError(f"where is {where}? Give --url, or set TIDEMILL_LINEAGE_TARGETS{shorthand}")


def _send(where: str, emitter: Emitter, runs: list[Run]) -> None:
    """Emit runs by an emitter that anybody may have written, and close it."""
    from tidemill_core.errors import TidemillError

    from tidemill_lineage.errors import LineageError

    try:
        emitter.emit(runs)
    except TidemillError:
        raise
    except Exception as error:  # an emitter of a stranger
        raise LineageError(f"lineage emitter {where!r} broke: {error!r}") from error
    finally:
        emitter.close()


def _edge(edge: Edge) -> dict[str, str]:
    from tidemill_lineage.document import edge_value

    return edge_value(edge)


def _edge_line(value: dict[str, str]) -> str:
    source = value["source"] + ("#" + value["source_column"] if "source_column" in value else "")
    target = value["target"] + ("#" + value["target_column"] if "target_column" in value else "")
    job = f", {value['job']}" if "job" in value else ""
    return f"{source} -> {target}  {value['kind']} {value['subtype']} ({value['method']}{job})"
