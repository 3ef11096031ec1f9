"""Turn one partition's messages into outputs: decode, check, filter, group. Pure but for the messages given."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import orjson

from tidemill_stream.errors import AggregateOverflow, InvalidRecord, PipelineInvalid, StateTooLarge
from tidemill_stream.plan import Plan, WindowPlan
from tidemill_stream.progress import Output, Partition, Progress
from tidemill_stream.records.columns import DeadLetter, encode_dead, encode_windows
from tidemill_stream.records.schema import Fault, unfit
from tidemill_stream.records.schema_types import INT64_MAX, INT64_MIN

if TYPE_CHECKING:
    import pyarrow as pa

    from tidemill_stream.windows.windows import ClosedWindow

_CHUNK_ROWS = 8_192
_TOMBSTONE = Fault("tombstone", "the message has no value: a delete, in a compacted topic")


class Message(Protocol):
    """What is needed of a Kafka message; confluent_kafka's satisfies it."""

    def offset(self) -> int:
        """Return the offset."""

    def value(self) -> bytes | None:
        """Return the value."""

    def key(self) -> bytes | None:
        """Return the key."""

    def timestamp(self) -> tuple[int, int]:
        """Return the kind of the timestamp (0 = none) and its milliseconds."""

    def headers(self) -> list[tuple[str, bytes | None]] | None:
        """Return the headers."""


class Processor:
    """The state of one partition and its outputs since the last commit."""

    def __init__(self, plan: Plan, partition: Partition, progress: Progress) -> None:
        self.plan, self.partition = plan, partition
        self._wants_rows = "rows" in plan.outputs
        self._wants_dead = "dlq" in plan.outputs
        self._keeps_tombstones = plan.config.source.tombstones == "dlq"
        self.adopt(progress)

    def adopt(self, progress: Progress) -> None:
        """Begin from a stored state.

        Raises:
            PipelineInvalid: The window definition has changed while windows were open.
        """
        window = self.plan.window
        definition = "" if window is None else window.definition
        if progress.windows and progress.definition != definition:
            raise PipelineInvalid(
                self.plan.config.name,
                f"{self.partition} holds {len(progress.windows)} open windows of another window definition; "
                "restore the definition and drain with flush_on_drain, or use a new pipeline name",
            )
        self.base = replace(progress, definition=definition)
        self.start, self.offset, self.flushes = progress.offset, progress.offset, progress.flushes
        self.counts = replace(progress.counts)
        self.windows = None if window is None else window.create()
        if self.windows is not None:
            self.windows.restore(list(progress.windows))
            self.windows.watermark_us = progress.watermark_us
        self._begin_output()

    def _begin_output(self) -> None:
        self._records: list[Any] = []
        self._offsets: list[int] = []
        self._batches: list[pa.RecordBatch] = []
        self._closed: list[ClosedWindow] = []
        self._dead: list[DeadLetter] = []
        self._reasons: Counter[str] = Counter()
        self._last: Message | None = None

    @property
    def position(self) -> tuple[int, int]:
        """Comparable to `Progress.position`."""
        return self.offset, len(self.flushes)

    @property
    def has_output(self) -> bool:
        """Whether anything happened since the last commit."""
        return self.position != self.base.position

    @property
    def pending(self) -> int:
        """Records consumed since the last commit."""
        return self.counts.consumed - self.base.counts.consumed

    def feed(self, messages: Sequence[Message]) -> None:
        """Process messages in offset order; those before our position are ignored."""
        if messages and messages[0].offset() < self.offset:
            messages = [message for message in messages if message.offset() >= self.offset]
        if not messages:
            return
        admit, records, offsets, wants_rows = self._admit, self._records, self._offsets, self._wants_rows
        filtered = rows = deleted = 0
        for message in messages:
            record = admit(message)
            if record is None:
                filtered += 1
            elif record is _TOMBSTONE:
                deleted += 1
                if self._keeps_tombstones:
                    self._dead.append(_letter(message, _TOMBSTONE))
            elif type(record) is Fault:
                self._set_aside(message, record)
            else:
                rows += 1
                if wants_rows:
                    records.append(record)
                    offsets.append(message.offset())
        self.counts.consumed += len(messages)
        self.counts.rows += rows
        self.counts.filtered += filtered
        self.counts.deleted += deleted
        self._last = messages[-1]
        self.offset = messages[-1].offset() + 1
        if len(records) >= _CHUNK_ROWS:
            self._encode_rows()
        self._check_state()

    def _admit(self, message: Message) -> Any:
        """Decode, check, filter and group one message: its record, None if it is filtered out, or a fault."""
        plan = self.plan
        value = message.value()
        record = _TOMBSTONE if value is None else plan.decoder.decode(value)
        if type(record) is Fault:
            return record
        for read, parse, path in plan.time_checks:
            value = read(record)
            if value is not None and parse(value) is None:
                return unfit(value, "timestamp", path)
        if plan.keep is not None:
            try:
                if not plan.keep(record):
                    return None
            except TypeError as error:
                return Fault("where", str(error))
        if self.windows is not None and (fault := self._add_to_window(message, record)) is not None:
            return fault
        return record

    def advance(self, offset: int) -> None:
        """Note that the log has no record before `offset` that we have not seen (offsets may have gaps)."""
        self.offset = max(self.offset, offset)

    def flush(self) -> bool:
        """Close every open window, as an event of its own at this offset; False if none is open."""
        if self.windows is None:
            return False
        self._closed += self.windows.take_closed()
        if not len(self.windows):
            return False
        self._closed += self.windows.flush()
        self.flushes = (*self.flushes, self.offset)
        return True

    def replay_flush(self) -> None:
        """Repeat a flush that another sink has stored, whether or not windows are open here."""
        if not self.flush():
            self.flushes = (*self.flushes, self.offset)

    def take(self, *, log_end: int = 0) -> Output:
        """Hand over the outputs since the last call, with the progress that belongs to them."""
        self._encode_rows()
        if self.windows is not None:
            self._closed += self.windows.take_closed()
        self._set_aside_overflows()
        self.counts.windows += len(self._closed)
        progress = replace(
            self.base,
            offset=self.offset,
            log_end=max(log_end, self.offset),
            watermark_us=None if self.windows is None else self.windows.watermark_us,
            flushes=self.flushes,
            counts=replace(self.counts),
            windows=() if self.windows is None else tuple(self.windows.dump()),
        )
        output = Output(
            partition=self.partition,
            start=self.start,
            progress=progress,
            rows=tuple(self._batches),
            windows=self._encode_windows(),
            dead=self._encode_dead(),
            reasons=dict(self._reasons),
            last_timestamp_ms=None if self._last is None else self._last.timestamp()[1],
        )
        self.base, self.start = progress, self.offset
        self._begin_output()
        return output

    def _add_to_window(self, message: Message, record: Any) -> Fault | None:
        window, windows = self.plan.window, self.windows
        assert window is not None
        assert windows is not None
        value = window.read_time(record)
        time_us = None if value is None else window.parse_time(value)
        if time_us is None:
            return Fault("no_time", "the event time is missing", f"$.{window.config.time.field}")
        if window.max_future_us is not None and time_us > message.timestamp()[1] * 1000 + window.max_future_us:
            return Fault("future", f"{str(value)[:100]} is too far in the future", f"$.{window.config.time.field}")
        if not windows.add(time_us, window.key_of(record), record):
            self.counts.late += 1
            if window.config.on_late == "dlq" and self._wants_dead:
                self._dead.append(_letter(message, Fault("late", f"the window of {str(value)[:100]} has closed")))
        return None

    def _set_aside(self, message: Message, fault: Fault) -> None:
        self.counts.invalid += 1
        self._reasons[fault.reason] += 1
        action = self.plan.config.schema_.on_invalid
        if action == "fail":
            raise InvalidRecord(*self.partition, message.offset(), f"{fault.reason}: {fault.message} {fault.path}")
        if action == "dlq":
            self._dead.append(_letter(message, fault))

    def _set_aside_overflows(self) -> None:
        """Take windows whose whole-number aggregate is beyond 64 bits out of the output, to the dead letters.

        Raises:
            AggregateOverflow: There are no dead letters to put them in.
        """
        window = self.plan.window
        whole = [index for index, (_, kind) in enumerate(window.values) if kind == "integer"] if window else []
        if window is None or not whole or not self._closed:
            return
        fits = []
        for closed in self._closed:
            wrong = next((at for at in whole if not _is_int64(closed.values[at])), None)
            if wrong is None:
                fits.append(closed)
                continue
            name = window.values[wrong][0]
            if not self._wants_dead:
                raise AggregateOverflow(self.plan.config.name, name, closed.values[wrong])
            self._reasons["overflow"] += 1
            self._dead.append(_window_letter(closed, window, name, self.offset - 1))
        self._closed = fits

    def _check_state(self) -> None:
        limit = self.plan.config.limits.open_windows
        if self.windows is not None and len(self.windows) > limit:
            self._closed += self.windows.take_closed()
            if len(self.windows) > limit:
                raise StateTooLarge(self.plan.config.name, *self.partition, len(self.windows), limit)

    def _encode_rows(self) -> None:
        if self._records:
            self._batches.append(self.plan.row_encoder.encode(self._records, self._offsets, self.partition))
            self._records, self._offsets = [], []

    def _encode_windows(self) -> pa.RecordBatch | None:
        schema = self.plan.arrow_schemas.get("windows")
        return encode_windows(self._closed, schema, self.partition) if self._closed and schema is not None else None

    def _encode_dead(self) -> pa.RecordBatch | None:
        if not self._dead:
            return None
        return encode_dead(self._dead, self.plan.config.name, self.plan.schema_hash, self.partition)


def _is_int64(value: Any) -> bool:
    return value is None or INT64_MIN <= value <= INT64_MAX


def _window_letter(closed: ClosedWindow, window: WindowPlan, name: str, offset: int) -> DeadLetter:
    """Write a closed window as a dead letter, its numbers as text."""
    names = [
        *(key.name for key in window.keys),
        "window_start_us",
        "window_end_us",
        *(each for each, _ in window.values),
    ]
    values = [*closed.key, closed.start_us, closed.end_us, *closed.values]
    plain = {key: value if value is None else str(value) for key, value in zip(names, values, strict=True)}
    return DeadLetter(
        offset=max(0, offset),
        timestamp_ms=None,
        key=None,
        value=orjson.dumps(plain),
        headers=None,
        reason="overflow",
        path=f"$.{name}",
        message=f"the window's {name} does not fit 64 bits; sum it as a number, or in smaller windows",
    )


def _letter(message: Message, fault: Fault) -> DeadLetter:
    kind, timestamp = message.timestamp()
    headers = message.headers()
    text = None
    if headers:
        plain = [
            [name, None if value is None else value.decode("utf-8", "backslashreplace")] for name, value in headers
        ]
        text = orjson.dumps(plain).decode().replace("\\u0000", "\\\\0")
    return DeadLetter(
        offset=message.offset(),
        timestamp_ms=timestamp if kind else None,
        key=message.key(),
        value=message.value(),
        headers=text,
        reason=fault.reason,
        path=fault.path.replace("\x00", "\\0"),
        message=fault.message.replace("\x00", "\\0"),
    )
