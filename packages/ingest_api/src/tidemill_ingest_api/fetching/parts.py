"""Read the parts of a stream one after another: each partition, and in it each window of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime

from tidemill_core.lifecycle import StopToken
from tidemill_core.telemetry import get_logger

from tidemill_ingest_api.config import SourceConfig, StreamConfig, WindowConfig
from tidemill_ingest_api.errors import UpstreamRefused, WindowFull
from tidemill_ingest_api.fetching import cursors
from tidemill_ingest_api.fetching.client import Client
from tidemill_ingest_api.fetching.first import Values
from tidemill_ingest_api.fetching.loading import StreamLoad, StreamReport
from tidemill_ingest_api.fetching.partitions import Partition, Window, first_window, window_values, windows
from tidemill_ingest_api.stores._base import StreamState

log = get_logger(__name__)
AfterPage = Callable[[StreamReport], None]


@dataclass(slots=True, kw_only=True)
class PartReader:
    """Reads parts into a load.

    Attributes:
        is_full: Read from the beginning, whatever is remembered.
        between: A range to read instead of what is new.
        stop: Checked before every page.
    """

    source: SourceConfig
    stream: StreamConfig
    client: Client
    load: StreamLoad
    is_full: bool = False
    between: tuple[datetime, datetime] | None = None
    stop: StopToken | None = None
    after_page: AfterPage = lambda _report: None

    def read_all(self, parts: Iterable[Partition], after_page: AfterPage) -> dict[str, str]:
        """Read every part; only the last commit, which ends the load, is left to the caller.

        Returns:
            Why the API refused partitions, by their key: the others are read all the same.
        """
        self.after_page = after_page
        failed: dict[str, str] = {}
        for part in parts:
            try:
                self._read_part(part)
            except UpstreamRefused as error:
                if not self.stream.is_partitioned:
                    raise
                failed[part.key] = str(error)
                log.warning("partition_refused", stream=self.stream.name, partition=part.key, reason=str(error))
                self.load.commit("partial")
                continue
            if self.stream.is_partitioned:
                self.load.end_part()
        if self.stream.is_partitioned:
            self.load.leave()
        return failed

    def _read_part(self, part: Partition) -> None:
        state = self.load.enter(part)
        known = StreamState() if self.is_full else state
        if self.stream.window is None:
            values = {**part.values, "cursor": cursors.request_text(self.stream, known.cursor)}
            self._read_list(values, known)
            return
        now = datetime.now(UTC)
        for window in windows(self.stream.window, self._range(self.stream.window, known.cursor, now)):
            self._read_window(self.stream.window, window, part, now)

    def _range(self, config: WindowConfig, reached: str | None, now: datetime) -> Window:
        if self.between is None:
            return first_window(config, reached, now)
        start, end = self.between
        return first_window(config.model_copy(update={"start": start, "end": end}), None, now)

    def _read_window(self, config: WindowConfig, window: Window, part: Partition, now: datetime) -> None:
        """Read a window; a full one in halves, so that what the API cut off is seen."""
        count = self._read_list({**part.values, **window_values(config, window)}, StreamState(), full=config.full)
        if config.full is not None and count >= config.full:
            halves = window.halves(config)
            if halves is None:
                raise WindowFull(self.stream.name, window.start.isoformat(), window.end.isoformat(), config.full)
            self.load.report.splits += 1
            for half in halves:
                self._read_window(config, half, part, now)
            return
        # The last window may reach into the future: what comes until its end is still to be read.
        self.load.reach(min(window.end, now).isoformat())

    def _read_list(self, values: Values, known: StreamState, *, full: int | None = None) -> int:
        """Read one list to its end, or until it is as long as the API gives.

        Returns:
            Its number of records, in its last reading.
        """
        count = 0
        for pages in self.load.readings(self.source, self.client, known.pages, values):
            count = 0
            for page in pages:
                if self.stop:
                    self.stop.raise_if_set()
                self.load.take(page)
                count += len(page.records)
                if self.load.waiting >= self.stream.batch_rows:
                    self.load.commit("partial")
                self.after_page(self.load.report)
                if full is not None and count >= full:
                    return count
        return count


__all__ = ["PartReader"]
