"""`tidemill sync`: mirror, look first, verify, see past runs, serve."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click
from tidemill_core.cli_output import Bounded, emit, emit_line, schema_command

if TYPE_CHECKING:
    from collections.abc import Callable

    from tidemill_core.config import Config

    from tidemill_sync.config import SyncConfig
    from tidemill_sync.result import SyncResult

M = TypeVar("M", bound="Config")

_UNKNOWN = ["compare", "size", "copy"]
_PLACES = "SOURCE and TARGET are URLs (file://, s3://, gs://, az://, lake://, mirror://) or local folders."


def _options(command: Callable[..., None]) -> Callable[..., None]:
    """Add what run, plan and verify share."""
    for option in reversed(
        [
            click.argument("source", required=False),
            click.argument("target", required=False),
            click.option(
                "-c", "--config", "config_file", type=click.Path(dir_okay=False), help="YAML or JSON of a sync."
            ),
            click.option("--include", multiple=True, help="Pattern of keys to mirror; may be repeated."),
            click.option("--exclude", multiple=True, help="Pattern of keys to leave alone; may be repeated."),
            click.option("--filter", "filters", multiple=True, help="Ordered rule, '+ PATTERN' or '- PATTERN'."),
            click.option("--min-age-s", type=float, default=None, help="Leave newer source objects out, seconds."),
            click.option("--max-age-s", type=float, default=None, help="Leave older source objects out, seconds."),
            click.option("--prune/--no-prune", default=None, help="Delete what the source does not have."),
            click.option("--max-delete-percent", type=float, default=None, help="Refuse to delete more; default 50."),
            click.option("--max-delete", type=int, default=None, help="Refuse to delete more objects than this."),
            click.option(
                "--allow-empty-source", is_flag=True, default=None, help="Let an empty source empty the target."
            ),
            click.option(
                "--unknown",
                type=click.Choice(["compare", "size", "copy"]),
                default=None,
                help="Equal sizes not known yet.",
            ),
            click.option("--metadata/--no-metadata", default=None, help="Keep content type and user metadata."),
            click.option("--workers", type=int, default=None, help="Objects copied at once."),
            click.option("--bytes-per-s", type=int, default=None, help="Bandwidth limit."),
            click.option("--trash", default=None, help="Prefix in TARGET that keeps what is deleted or replaced."),
            click.option(
                "--change-log", type=click.Path(dir_okay=False), default=None, help="Append changed keys here."
            ),
            click.option("--manifest", default=None, help="sqlite:///path or postgresql://... of what was copied."),
            click.option("--json", "as_json", is_flag=True, help="Print JSON."),
        ]
    ):
        command = option(command)
    return command


@click.group()
def sync() -> None:
    """Mirror objects between S3, GCS, Azure and local folders."""


@sync.command()
@_options
@click.option("--dry-run", is_flag=True, help="Print the plan and do nothing.")
def run(*, as_json: bool, dry_run: bool, **options: Any) -> None:
    """Make TARGET hold what SOURCE holds.

    SOURCE and TARGET are URLs (file://, s3://, gs://, az://, lake://, mirror://) or local folders;
    without them, lake:// is mirrored to mirror://.
    """
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_sync.budget import give_back_freed_memory
    from tidemill_sync.engine import sync as run_sync
    from tidemill_sync.progress import progress_for

    config = _config(**options)
    if dry_run:
        _print_plan(config, as_json=as_json)
        return
    give_back_freed_memory()
    with stop_on_signals() as stop:
        result = run_sync(config, stop=stop, progress=progress_for(is_quiet=as_json))
    _print_result(result, as_json=as_json)


def _print_result(result: SyncResult, *, as_json: bool) -> None:
    if as_json:
        emit(result, as_json=True)
        return
    click.echo(result.sentence())


@sync.command()
@_options
@click.option("--out", type=click.Path(dir_okay=False), help="Keep the plan in this Parquet file, for `apply`.")
def plan(*, as_json: bool, out: str | None, **options: Any) -> None:
    """Print what a run would do, one line per key, and do nothing."""
    config = _config(**options)
    if out is None:
        _print_plan(config, as_json=as_json)
        return
    from pathlib import Path

    from tidemill_sync.apply import keep_plan

    kept = keep_plan(config, Path(out))
    if as_json:
        emit(kept.as_dict(), as_json=True)
        return
    click.echo(f"{kept.path}: {kept.sentence()}")


@sync.command()
@click.argument("file", type=click.Path(dir_okay=False))
@click.option("--workers", type=Bounded(1, 256), default=None, help="Objects copied at once.")
@click.option("--bytes-per-s", type=Bounded(1), default=None, help="Bandwidth limit.")
@click.option("--change-log", type=click.Path(dir_okay=False), default=None, help="Append changed keys here.")
@click.option("--manifest", default=None, help="sqlite:///path or postgresql://... of what was copied.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def apply(*, file: str, as_json: bool, manifest: str | None, change_log: str | None, **options: Any) -> None:
    """Do what the plan in FILE shows and nothing else; what has changed since is refused, exit 1."""
    from pathlib import Path

    from pydantic import SecretStr
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_sync.apply import apply_plan
    from tidemill_sync.budget import give_back_freed_memory
    from tidemill_sync.progress import progress_for

    given = {
        **options,
        "manifest": SecretStr(manifest) if manifest else None,
        "change_log": Path(change_log) if change_log else None,
    }
    changes = {name: value for name, value in given.items() if value is not None}
    give_back_freed_memory()
    with stop_on_signals() as stop:
        result = apply_plan(Path(file), changes=changes, stop=stop, progress=progress_for(is_quiet=as_json))
    _print_result(result, as_json=as_json)


@sync.command()
@_options
def validate(*, as_json: bool, **options: Any) -> None:
    """Check a configuration, and that both places can be opened; nothing is listed or written."""
    from tidemill_core.storage import open_store

    from tidemill_sync.session import check_apart

    config = _config(**options)
    places = {"source": open_store(config.source).url, "target": open_store(config.target).url}
    check_apart(places["source"], places["target"])
    if as_json:
        emit(places, as_json=True)
        return
    click.echo(f"{places['source']} -> {places['target']}: ok")


def _model() -> type[SyncConfig]:
    from tidemill_sync.config import SyncConfig

    return SyncConfig


sync.add_command(schema_command(_model))


@sync.command()
@_options
@click.option("--content", is_flag=True, help="Read every object on both sides.")
def verify(*, as_json: bool, content: bool, **options: Any) -> None:
    """Compare SOURCE and TARGET; exit 1 if TARGET lacks something (or, with --prune, holds more)."""
    from tidemill_core.lifecycle import stop_on_signals

    from tidemill_sync.verification import verify as run_verify

    config = _config(**options)
    with stop_on_signals() as stop:
        report = run_verify(config, content=content, stop=stop)
    if as_json:
        emit(report, as_json=True)
    else:
        for each in report.differences:
            click.echo(f"{each.kind}\t{each.key}\t{each.reason}")
        click.echo(report.sentence())
    if not (report.is_exact if config.prune else report.is_complete):
        sys.exit(1)


@sync.command()
@click.option("--manifest", default=None, help="sqlite:///path or postgresql://... of what was copied.")
@click.option("--limit", type=Bounded(1), default=10, show_default=True, help="How many runs.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def status(*, manifest: str | None, limit: int, as_json: bool) -> None:
    """List the latest runs, newest first."""
    from contextlib import closing
    from datetime import UTC, datetime

    from pydantic import SecretStr

    from tidemill_sync.config import SyncConfig
    from tidemill_sync.manifests.open import open_manifest
    from tidemill_sync.session import current_runs, manifest_url

    config = SyncConfig(manifest=SecretStr(manifest) if manifest else None)
    with closing(open_manifest(manifest_url(config))) as opened:
        runs = current_runs(opened, limit)
    if as_json:
        emit(runs, as_json=True)
        return
    for each in runs:
        began = datetime.fromtimestamp(each.started_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        facts = ", ".join(
            f"{each.result[name]} {name}" for name in ("copied", "replaced", "skipped", "deleted", "failed", "bytes")
        )
        click.echo(f"{began}  {each.state:<8} {each.source} -> {each.target}  {facts}")


@sync.command()
@click.option("-c", "--config", "config_file", type=click.Path(dir_okay=False), help="YAML or JSON of a sync service.")
@click.option("--host", default=None, help="Address to listen on; default 127.0.0.1.")
@click.option("--port", type=Bounded(0, 65_535), help="Port to listen on; default 8087, 0 takes a free one.")
@click.option("--allow", multiple=True, help="URL under which jobs may read and write; may be repeated.")
def serve(config_file: str | None, host: str | None, port: int | None, allow: tuple[str, ...]) -> None:
    """Run the sync service: durable jobs and bucket events over HTTP.

    The bearer token is read from the variable TIDEMILL_SYNC_TOKEN, or the file that
    TIDEMILL_SYNC_TOKEN_FILE names.
    """
    from pydantic import SecretStr
    from tidemill_core.variables import read_secret

    from tidemill_sync.api.serve import serve as run_service
    from tidemill_sync.budget import give_back_freed_memory
    from tidemill_sync.config import ServeConfig
    from tidemill_sync.variables import TOKEN

    token = read_secret(TOKEN)
    given = {"host": host, "port": port, "allow": allow or None, "token": SecretStr(token) if token else None}
    give_back_freed_memory()
    run_service(_merged(ServeConfig, config_file, given))


def _config(*, config_file: str | None, source: str | None, target: str | None, **options: Any) -> SyncConfig:
    from pydantic import SecretStr

    from tidemill_sync.config import SyncConfig

    if source and not target:
        raise click.UsageError("give a TARGET too. " + _PLACES)
    if options.get("manifest"):
        options["manifest"] = SecretStr(options["manifest"])
    given = {name: value for name, value in options.items() if value not in (None, ())}
    return _merged(SyncConfig, config_file, {"source": source, "target": target, **given})


def _merged(model: type[M], config_file: str | None, given: dict[str, Any]) -> M:
    """Read the file, and put the given options over it."""
    from tidemill_core.config import Document, load, validate

    base = load(config_file, model).model_dump() if config_file else {}
    values = {**base, **{name: value for name, value in given.items() if value is not None}}
    return validate(Document(values, {}, "options"), model)


def _print_plan(config: SyncConfig, *, as_json: bool) -> None:
    from tidemill_sync.engine import plan_actions

    counts: dict[str, int] = {}
    for action in plan_actions(config):
        counts[action.kind] = counts.get(action.kind, 0) + 1
        if action.kind in {"skip", "forget"}:
            continue
        if as_json:
            facts = {"kind": action.kind, "key": action.key, "bytes": action.size_bytes, "reason": action.reason}
            emit_line(facts)
        else:
            click.echo(f"{action.kind}\t{action.key}\t{action.size_bytes}\t{action.reason}")
    click.echo(
        "plan: " + (", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "nothing"), err=True
    )
