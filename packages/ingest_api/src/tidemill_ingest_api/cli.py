"""`tidemill ingest`: fetch REST APIs into a database and serve what was fetched."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from tidemill_core.cli_output import Bounded, emit
from tidemill_core.variables import read_secret

from tidemill_ingest_api.variables import STORE as STORE_VARIABLE

if TYPE_CHECKING:
    from tidemill_ingest_api.config import SourceConfig
    from tidemill_ingest_api.fetching.fetch import Part, StreamReport

CONFIG = click.argument("config")
STREAM = click.option("--stream", "streams", multiple=True, help="Only this stream; may be repeated.")
STORE = click.option(
    "--store",
    default=lambda: read_secret(STORE_VARIABLE),
    help=f"sqlite:///file.db or postgresql://...; default ${STORE_VARIABLE}.",
)
BASE_URL = click.option("--base-url", help="Use this instead of the configuration's base_url.")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for machines.")


@click.group()
def ingest() -> None:
    """Fetch REST APIs into SQLite or PostgreSQL; serve them by REST and gRPC.

    CONFIG is a YAML or JSON file, or a source that comes with Tidemill, such as
    builtin:github_issues. Without a store, rows go to the configured or embedded PostgreSQL.
    """


@ingest.command()
@CONFIG
@STREAM
@STORE
@BASE_URL
@click.option("--full", is_flag=True, help="Read every page again, whatever is remembered.")
@click.option(
    "--partition",
    "partitions",
    multiple=True,
    metavar="NAME=VALUE",
    help="Only partitions with this value; needs --stream.",
)
@click.option(
    "--from", "start", metavar="TIME", help="Read windows from here, and do not change where the stream stands."
)
@click.option("--to", "end", metavar="TIME", help="Read windows up to here.")
@JSON
def run(
    config: str,
    streams: tuple[str, ...],
    store: str | None,
    base_url: str | None,
    *,
    full: bool,
    partitions: tuple[str, ...],
    start: str | None,
    end: str | None,
    as_json: bool,
) -> None:
    """Fetch what is new; killed and run again, it ends with the same tables."""
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_ingest_api.fetching.fetch import run_source
    from tidemill_ingest_api.fetching.runs import connected, opened, store_url
    from tidemill_ingest_api.sources import load_source

    source = load_source(config)
    part = _part(source, streams, partitions, start, end)
    with (
        stop_on_signals() as stop,
        opened(store_url(source, store)) as target,
        connected(source, base_url=base_url, stop=stop) as client,
    ):
        show = None if as_json or not sys.stderr.isatty() else _progress
        reports = run_source(source, target, client, streams=streams, is_full=full, part=part, stop=stop, on_page=show)
    if show is not None:
        click.echo("", err=True)
    if as_json:
        emit(reports, as_json=True)
        return
    for report in reports:
        click.echo(_summary(report))


@ingest.command()
@CONFIG
@STREAM
@STORE
@BASE_URL
@JSON
def plan(config: str, streams: tuple[str, ...], store: str | None, base_url: str | None, *, as_json: bool) -> None:
    """Say what a run would do, without a request and without writing."""
    from tidemill_core.errors import ConfigError

    from tidemill_ingest_api.fetching.runs import opened, store_url
    from tidemill_ingest_api.fetching.status import plan_stream
    from tidemill_ingest_api.sources import find_base_url, load_source

    source = load_source(config)
    try:
        base = base_url or find_base_url(source)
    except ConfigError:
        base = source.base_url
    chosen = [source.stream(name) for name in streams] or list(source.streams)
    with opened(store_url(source, store)) as target:
        plans = [plan_stream(source, stream, target, base) for stream in chosen]
    if as_json:
        emit(plans, as_json=True)
        return
    for each in plans:
        state = "new" if each.is_new else f"{each.rows} rows, {each.known_pages} known pages, cursor {each.cursor}"
        click.echo(f"{each.stream}: {each.url}\n  -> {each.table} in {each.store} ({state})")


@ingest.command()
@CONFIG
@STREAM
@BASE_URL
@click.option("--pages", default=1, show_default=True, type=Bounded(1), help="Pages to fetch, at most.")
@click.option("--rows", default=5, show_default=True, type=Bounded(0), help="Rows to print, at most.")
@click.option("--fields", is_flag=True, help="Print the fields that the sample suggests, as YAML.")
def preview(
    config: str, streams: tuple[str, ...], base_url: str | None, pages: int, rows: int, *, fields: bool
) -> None:
    """Fetch a few pages and print rows as JSON lines; nothing is written."""
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_ingest_api.fetching.preview import preview as look
    from tidemill_ingest_api.fetching.runs import connected
    from tidemill_ingest_api.sources import load_source

    source = load_source(config)
    chosen = [source.stream(name) for name in streams] or list(source.streams)
    with stop_on_signals() as stop, connected(source, base_url=base_url, stop=stop) as client:
        for stream in chosen:
            found = look(source, stream, client, pages=pages, rows=rows)
            for url in found.urls:
                click.echo(f"{stream.name}: {url}", err=True)
            for text in found.rejected:
                click.echo(text, err=True)
            if fields:
                click.echo(f"# {stream.name}\nfields:")
                for name, kind in found.fields.items():
                    click.echo(f"  {name}: {kind}")
                continue
            for row in found.rows:
                click.echo(row.decode())


@ingest.command()
@CONFIG
@STORE
@click.option("--limit", default=10, show_default=True, type=Bounded(1), help="Loads to show.")
@JSON
def status(config: str, store: str | None, limit: int, *, as_json: bool) -> None:
    """Show each stream's rows and cursor, and the last loads."""
    from tidemill_ingest_api.fetching.runs import opened, store_url
    from tidemill_ingest_api.fetching.status import source_status
    from tidemill_ingest_api.sources import load_source

    source = load_source(config)
    with opened(store_url(source, store)) as target:
        found = source_status(source, target, limit=limit)
    if as_json:
        emit(found, as_json=True)
        return
    for stream in found.streams:
        click.echo(f"{stream.stream}: {stream.rows} rows in {stream.table}, cursor {stream.cursor or '-'}")
    for load in found.loads:
        facts = load.facts
        click.echo(
            f"  {load.started_at}  {load.stream:<20} {load.status:<8} pages {facts.get('pages')}"
            f" (unchanged {facts.get('not_modified')}), new {facts.get('inserted')}, changed {facts.get('updated')}"
        )


@ingest.command()
@CONFIG
@STORE
@click.option("--limit", default=100, show_default=True, type=Bounded(1), help="Records to show.")
def rejects(config: str, store: str | None, limit: int) -> None:
    """Print the records that were kept aside because they do not fit (on_bad_record: keep), as JSON lines."""
    from tidemill_ingest_api.fetching.runs import opened, store_url
    from tidemill_ingest_api.sources import load_source

    source = load_source(config)
    with opened(store_url(source, store)) as target:
        for each in target.rejects(source.source, limit=limit):
            click.echo(json.dumps(asdict(each), ensure_ascii=False))


@ingest.command()
@CONFIG
def validate(config: str) -> None:
    """Check a configuration; every fault is named with its line."""
    from tidemill_ingest_api.sources import load_source

    source = load_source(config)
    names = ", ".join(stream.name for stream in source.streams)
    click.echo(f"{config}: source {source.source!r}, streams {names}: valid")


@ingest.command()
@CONFIG
@STORE
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--rest-port", default=8080, show_default=True, help="Port of REST; 0 takes a free one, -1 none.")
@click.option("--grpc-port", default=50051, show_default=True, help="Port of gRPC; 0 takes a free one, -1 none.")
@click.option("--no-auth", is_flag=True, help="Serve everybody, where the configuration does not say who may read.")
@click.option("--ready-file", type=click.Path(), help="Write the ports to this file (JSON) once both answer.")
def serve(
    config: str,
    store: str | None,
    host: str,
    rest_port: int,
    grpc_port: int,
    *,
    no_auth: bool,
    ready_file: str | None,
) -> None:
    """Answer get and list of the fetched tables by REST and by gRPC, from one process."""
    from pathlib import Path

    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_ingest_api.api.server import Ports, serve_until
    from tidemill_ingest_api.fetching.runs import opened, store_url
    from tidemill_ingest_api.sources import load_source

    source = _servable(load_source(config), is_open=no_auth)

    def ready(ports: Ports) -> None:
        told = asdict(ports)
        if ready_file:
            draft = Path(ready_file + ".part")
            draft.write_text(json.dumps(told), encoding="utf-8")
            draft.rename(ready_file)
        click.echo(json.dumps(told))
        sys.stdout.flush()

    with stop_on_signals() as stop, opened(store_url(source, store)) as target:
        serve_until(stop, source, target, host=host, rest_port=rest_port, grpc_port=grpc_port, on_ready=ready)


@ingest.command()
@click.argument("reader")
@click.option("--table", "tables", multiple=True, help="Table the reader may read; default all.")
def key(reader: str, tables: tuple[str, ...]) -> None:
    """Make an API key for a reader: the key on the first line, its entry for `serve.auth.keys` on the second."""
    from tidemill_ingest_api.api.auth import new_key

    secret, digest = new_key()
    click.echo(secret)
    click.echo(json.dumps({"id": reader, "sha256": digest, "scopes": list(tables) or ["*"]}))


@ingest.command()
def schema() -> None:
    """Print the JSON Schema of a configuration, for editors."""
    from tidemill_ingest_api.config import SourceConfig

    click.echo(json.dumps(SourceConfig.model_json_schema(), indent=2))


@ingest.command()
def sources() -> None:
    """List the sources that come with Tidemill."""
    from tidemill_ingest_api.sources import BUILTIN, builtin_names

    for name in builtin_names():
        click.echo(BUILTIN + name)


def _part(
    source: SourceConfig, streams: tuple[str, ...], partitions: tuple[str, ...], start: str | None, end: str | None
) -> Part:
    """Read the options that choose a part of one stream.

    Raises:
        UsageError: They do not fit together, or one cannot be read.
    """
    from datetime import UTC, datetime

    from tidemill_ingest_api.fetching.fetch import Part

    if not (partitions or start or end):
        return Part()
    if len(streams) != 1:
        raise click.UsageError("--partition, --from and --to choose a part of one stream: give one --stream")
    pairs = [text.partition("=") for text in partitions]
    if any(not (name and value) for name, _, value in pairs):
        raise click.UsageError("write --partition NAME=VALUE")
    only = {name: value for name, _, value in pairs}
    if not (start or end):
        return Part(only=only)
    if not (start and end) or source.stream(streams[0]).window is None:
        raise click.UsageError("--from and --to belong together, and to a stream with a `window`")
    try:
        moments = [datetime.fromisoformat(text) for text in (start, end)]
    except ValueError:
        raise click.UsageError("--from and --to are times in ISO 8601, such as 2024-01-01T06:00") from None
    first, last = (each.replace(tzinfo=UTC) if each.tzinfo is None else each for each in moments)
    if first >= last:
        raise click.UsageError("--from must be before --to")
    return Part(only=only, between=(first, last))


def _servable(source: SourceConfig, *, is_open: bool) -> SourceConfig:
    from tidemill_core.errors import ConfigError

    from tidemill_ingest_api.config import OpenServe, ServeConfig

    if source.serve is not None:
        return source
    if not is_open:
        raise ConfigError(
            f"source {source.source!r} does not say who may read: add serve: {{auth: ...}}, or give --no-auth"
        )
    return source.model_copy(update={"serve": ServeConfig(auth=OpenServe(type="none"))})


def _progress(report: StreamReport) -> None:
    click.echo(
        f"\r{report.stream}: {report.pages} pages ({report.not_modified} unchanged), {report.records} records",
        err=True,
        nl=False,
    )


def _summary(report: StreamReport) -> str:
    said: Any = f"{report.inserted} new, {report.updated} changed, {report.unchanged} equal"
    if report.is_unchanged:
        said = "unchanged, no row rewritten"
    skipped = f", {report.not_modified} of them unchanged (304)" if report.not_modified else ""
    waited = f", waited {report.wait_s:.1f} s" if report.wait_s else ""
    rejected = f", {report.rejected} rejected" if report.rejected else ""
    parts = f", {report.partitions} partitions" if report.partitions else ""
    return (
        f"{report.stream} -> {report.table}: {said}; {report.rows} rows now;"
        f" {report.pages} pages{parts}{skipped}{rejected}, {report.seconds:.1f} s{waited}"
    )
