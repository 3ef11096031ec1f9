"""OpenLineage events (spec 2-0-2 with the column lineage facet), by HTTP or into a file.

Each job of a run becomes one START and one COMPLETE (or FAIL), however often the job announced
something. Ids are made from the run and the job, so that sending a run again repeats its events.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import unquote, urlsplit

import orjson
from pydantic import Field, SecretStr
from tidemill_core.errors import ConfigError
from tidemill_core.retry import RetryPolicy
from tidemill_core.telemetry.redact import redact

from tidemill_lineage.delivery.appending import append_missing
from tidemill_lineage.delivery.forks import PerProcess
from tidemill_lineage.emitters._base import Target, Traits, takes
from tidemill_lineage.errors import EmitRefused, EmitterDown
from tidemill_lineage.graph import with_stable_names
from tidemill_lineage.model import ASSET_SCHEME, Column, Dataset, DatasetUrn, Edge, Run

if TYPE_CHECKING:
    import httpx

SPEC = "https://openlineage.io/spec/2-0-2/OpenLineage.json"
_FACETS = "https://openlineage.io/spec/facets"
PRODUCER = "urn:tidemill:lineage"
_IDS = uuid.UUID("6f1d2c9e-5c0a-5a58-9a3c-3f0c6d1b7e21")
_POSTGRES = re.compile(r"^postgres(?:ql)?$")


def events_of(runs: Iterable[Run], *, namespace: str = "tidemill") -> list[dict[str, Any]]:
    """Build the events of runs, in order: START and the end of each job of each run."""
    jobs: dict[tuple[str, str], list[Run]] = {}
    for run in with_stable_names(list(runs)):
        jobs.setdefault((run.id, run.job), []).append(run)
    return [event for parts in jobs.values() for event in _events(parts, namespace)]


def _events(parts: list[Run], namespace: str) -> list[dict[str, Any]]:
    first = parts[0]
    reads, writes = _datasets(each.reads for each in parts), _datasets(each.writes for each in parts)
    edges = sorted({edge for each in parts for edge in each.edges})
    for urn in sorted({edge.source for edge in edges} - reads.keys() - writes.keys()):
        reads[urn] = Dataset(urn=urn)
    rows = [each.rows for each in parts if each.rows is not None and each.writes]
    failed = [each for each in parts if each.state == "FAIL"]
    common = {
        "job": {"namespace": namespace, "name": first.job, "facets": {"jobType": _JOB_TYPE}},
        "producer": PRODUCER,
        "schemaURL": f"{SPEC}#/$defs/RunEvent",
    }
    again = f"/{first.attempt}" if first.attempt else ""
    run_id = str(uuid.uuid5(_IDS, f"{first.id}/{first.job}{again}"))
    engine = {"processing_engine": _engine()}
    facets = engine | {"errorMessage": _facet("ErrorMessageRunFacet", "1-0-1") | {
        "message": failed[0].error, "programmingLanguage": "python"}} if failed else engine  # fmt: skip
    start = {"eventType": "START", "eventTime": _time(min(each.started_at for each in parts)),
             "run": {"runId": run_id, "facets": engine}, "inputs": [], "outputs": []}  # fmt: skip
    end = {
        "eventType": "FAIL" if failed else "COMPLETE",
        "eventTime": _time(max(each.ended_at for each in parts)),
        "run": {"runId": run_id, "facets": facets},
        "inputs": [_dataset(each) for each in reads.values()],
        "outputs": [] if failed else [_output(each, edges, rows) for each in writes.values()],
    }
    return [start | common, end | common]


@lru_cache(maxsize=4096)
def dataset_name(urn: DatasetUrn) -> tuple[str, str]:
    """Split a URN into OpenLineage's namespace and name, by its naming rules."""
    if urn.startswith(ASSET_SCHEME):
        return "dagster", urn.removeprefix(ASSET_SCHEME)
    parts = urlsplit(urn)
    path = unquote(parts.path).strip("/")
    if parts.scheme == "file":
        return "file", unquote(parts.path)
    if _POSTGRES.match(parts.scheme):
        return f"postgres://{parts.netloc}", path.replace("/", ".")
    if not parts.scheme:
        return "tidemill", urn
    return f"{parts.scheme}://{parts.netloc}", path or "/"


def _dataset(dataset: Dataset) -> dict[str, Any]:
    namespace, name = dataset_name(dataset.urn)
    facets: dict[str, Any] = {}
    if dataset.columns:
        facets["schema"] = _facet("SchemaDatasetFacet", "1-2-0") | {
            "fields": [_field(each, at) for at, each in enumerate(dataset.columns, 1)]
        }
    return {"namespace": namespace, "name": name, "facets": facets}


def _field(column: Column, at: int) -> dict[str, Any]:
    return {"name": column.name, "ordinal_position": at} | ({"type": column.type} if column.type else {})


def _output(dataset: Dataset, edges: list[Edge], rows: list[int]) -> dict[str, Any]:
    value = _dataset(dataset)
    own = [edge for edge in edges if edge.target == dataset.urn and edge.source_column]
    if own:
        found: dict[str, dict[tuple[str, str], dict[str, Any]]] = {}
        for edge in own:
            _add(found.setdefault(edge.target_column, {}), edge)
        whole = [*found.pop("", {}).values()]
        fields = {name: {"inputFields": [*sources.values()]} for name, sources in found.items()}
        facet = _facet("ColumnLineageDatasetFacet", "1-2-0") | {"fields": fields}
        value["facets"]["columnLineage"] = facet | ({"dataset": whole} if whole else {})
    if rows:
        value["outputFacets"] = {"outputStatistics": _facet("OutputStatisticsOutputDatasetFacet", "1-0-2") | {
            "rowCount": sum(rows)}}  # fmt: skip
    return value


def _add(sources: dict[tuple[str, str], dict[str, Any]], edge: Edge) -> None:
    """Add one source; several influences of one source column are its transformations."""
    key = (edge.source, edge.source_column)
    if key not in sources:
        namespace, name = dataset_name(edge.source)
        sources[key] = {"namespace": namespace, "name": name, "field": edge.source_column, "transformations": []}
    sources[key]["transformations"].append(
        {"type": edge.kind, "subtype": edge.subtype, "description": f"found by {edge.method}", "masking": False}
    )


def _facet(name: str, version: str) -> dict[str, Any]:
    return {"_producer": PRODUCER, "_schemaURL": f"{_FACETS}/{version}/{name}.json#/$defs/{name}"}


_JOB_TYPE = _facet("JobTypeJobFacet", "2-0-4") | {
    "processingType": "BATCH", "integration": "TIDEMILL", "jobType": "TASK",
}  # fmt: skip


@lru_cache(maxsize=1)
def _engine() -> dict[str, Any]:
    """What runs the jobs: this package, in its version."""
    found = version("tidemill-lineage")
    engine = {"version": found, "name": "tidemill", "openlineageAdapterVersion": found}
    return _facet("ProcessingEngineRunFacet", "1-1-1") | engine


def _datasets(groups: Iterable[Iterable[Dataset]]) -> dict[DatasetUrn, Dataset]:
    """Unite datasets by URN; the richest columns win."""
    found: dict[DatasetUrn, Dataset] = {}
    for each in (dataset for group in groups for dataset in group):
        known = found.get(each.urn)
        if known is None or len(each.columns) > len(known.columns):
            found[each.urn] = each
    return dict(sorted(found.items()))


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


class OpenLineageEmitter:
    """Sends events to an HTTP endpoint, or appends them to a file.

    Args:
        url: ``http://host:port`` (``/api/v1/lineage`` is added where no path is given) or ``file:///path.jsonl``.
        namespace: Namespace of the jobs.
        api_key: Sent as a bearer token.
        timeout_s: Per request.
        retry: How often a request that fails for a passing reason is sent again.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str = "tidemill",
        api_key: str | None = None,
        timeout_s: float = 5.0,
        retry: RetryPolicy | None = None,
    ) -> None:
        self.url = checked_url(url)
        self.namespace, self._key, self._timeout_s = namespace, api_key, timeout_s
        self._retry = retry or RetryPolicy(attempts=3, delay_s=0.2, max_delay_s=2.0)
        self._client = PerProcess(self._open)
        self._sent: set[bytes] = set()

    @property
    def name(self) -> str:
        """What this emitter is called in logs and counters."""
        return "openlineage"

    @property
    def identity(self) -> str:
        """The endpoint or file, and the namespace."""
        return f"openlineage {redact(self.url)} {self.namespace}"

    @property
    def traits(self) -> Traits:
        """One START and one end a run, so it wants whole runs."""
        return Traits(whole_runs=True, local=self.url.startswith("file:"))

    def emit(self, runs: Sequence[Run]) -> None:
        """Send the events of runs.

        Raises:
            EmitterDown: The endpoint is not there, too slow or overloaded.
            EmitRefused: It rejected an event.
        """
        bodies = [orjson.dumps(event) for event in events_of(runs, namespace=self.namespace)]
        if self.url.startswith("file:"):
            self._append(bodies)
            return
        for body in bodies:
            # what arrived before a failure half-way is not sent again with the rest
            if body not in self._sent:
                self._retry.call(self._post, body)
                self._sent.add(body)
        self._sent.difference_update(bodies)

    def close(self) -> None:
        """Close the connections."""
        client = self._client.take()
        if client is not None:
            client.close()

    def _append(self, bodies: list[bytes]) -> None:
        append_missing(Path(unquote(urlsplit(self.url).path)), bodies)

    def _open(self) -> httpx.Client:
        import httpx

        key = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        return httpx.Client(timeout=self._timeout_s, headers={"Content-Type": "application/json"} | key)

    def _post(self, body: bytes) -> None:
        import httpx

        try:
            answer = self._client.get().post(self.url, content=body)
        except httpx.HTTPError as error:
            raise EmitterDown(f"OpenLineage at {self.url}", str(error) or type(error).__name__) from error
        if answer.status_code in (408, 429) or answer.status_code >= 500:  # noqa: PLR2004  # HTTP's own numbers
            asked = answer.headers.get("Retry-After", "")
            wait_s = float(asked) if asked.isdigit() else None
            raise EmitterDown(f"OpenLineage at {self.url}", f"status {answer.status_code}", wait_s)
        if answer.status_code >= 400:  # noqa: PLR2004
            raise EmitRefused(f"OpenLineage at {self.url}", f"status {answer.status_code}: {answer.text[:200]}")


def checked_url(url: str) -> str:
    """Complete the URL of an endpoint or a file.

    Raises:
        ConfigError: It is neither.
    """
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") and parts.hostname:
        return url if parts.path.strip("/") else url.rstrip("/") + "/api/v1/lineage"
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return url
    hint = f"; did you mean 'file:///{url.removeprefix('file://')}'?" if parts.scheme == "file" else ""
    hint = hint or (f"; did you mean 'http://{url}'?" if "://" not in url and url else "")
    raise ConfigError(f"{redact(url)!r} is no OpenLineage address: http://host:port or file:///path wanted{hint}")


class OpenLineageTarget(Target):
    """An OpenLineage endpoint, or a file of events."""

    type: Literal["openlineage"]
    """Always ``openlineage``."""
    url: str
    """``http://host:port`` (``/api/v1/lineage`` is added where no path is given) or ``file:///path.jsonl``."""
    namespace: str = Field(default="tidemill", min_length=1)
    """Namespace of the jobs."""
    api_key: SecretStr | None = None
    """Sent as a bearer token; unset means none is sent."""
    timeout_s: float = Field(default=5.0, gt=0)
    """Seconds per request."""
    attempts: int = Field(default=3, ge=1)
    """Requests in all for one event that fails for a passing reason, the first included."""


@takes(OpenLineageTarget)
def open_openlineage(target: OpenLineageTarget) -> OpenLineageEmitter:
    """Open the emitter registered as ``openlineage``."""
    key = target.api_key.get_secret_value() if target.api_key else None
    retry = RetryPolicy(attempts=target.attempts, delay_s=0.2, max_delay_s=2.0)
    return OpenLineageEmitter(
        target.url, namespace=target.namespace, api_key=key, timeout_s=target.timeout_s, retry=retry
    )
