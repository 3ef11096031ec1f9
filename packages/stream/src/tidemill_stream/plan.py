"""Compile a pipeline's configuration into the functions and schemas that run it; every mismatch is found here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tidemill_core.plugins import did_you_mean

from tidemill_stream.config import ColumnType, PipelineConfig, WindowConfig, column_name
from tidemill_stream.errors import PipelineInvalid
from tidemill_stream.records import filter as where
from tidemill_stream.records.columns import Column, RowEncoder, dlq_schema, rows_schema, windows_schema
from tidemill_stream.records.event_time import TimeParser, time_parser
from tidemill_stream.records.fields import access, compile_function, join_path, reader, split_path
from tidemill_stream.records.schema import (
    Need,
    RecordDecoder,
    column_type,
    json_types,
    load_schema,
    property_at,
    schema_hash,
    schema_path,
)
from tidemill_stream.records.schema_files import Refs
from tidemill_stream.windows.aggregates import Reducer, make_reducer
from tidemill_stream.windows.windows import FixedWindows, SessionWindows, Windows

if TYPE_CHECKING:
    import pyarrow as pa

_RESERVED = {"window_start", "window_end", "_topic", "_partition"}


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPlan:
    """The compiled window section."""

    config: WindowConfig
    keys: tuple[Column, ...]
    values: tuple[tuple[str, ColumnType], ...]
    reducer: Reducer
    key_of: Callable[[Any], tuple[Any, ...]]
    read_time: Callable[[Any], Any]
    parse_time: TimeParser
    max_future_us: int | None
    definition: str

    def create(self) -> Windows:
        """Make the empty windows of a partition."""
        c = self.config
        grace, offset = round(c.grace_s * 1e6), round(c.offset_s * 1e6)
        if c.type == "session":
            return SessionWindows(self.reducer, gap_us=round((c.gap_s or 0) * 1e6), grace_us=grace)
        size = round((c.size_s or 0) * 1e6)
        hop = size if c.hop_s is None else round(c.hop_s * 1e6)
        return FixedWindows(self.reducer, size_us=size, hop_us=hop, grace_us=grace, offset_us=offset)


class Plan:
    """A pipeline ready to run.

    Args:
        config: The pipeline.
        base: Folder that relative schema files stand in; default the working directory.
        schema: The JSON Schema, where it has been read already.

    Raises:
        ConfigError: The schema, the condition, the columns or the window do not fit together.
    """

    def __init__(
        self, config: PipelineConfig, *, base: Path | None = None, schema: Mapping[str, Any] | None = None
    ) -> None:
        self.config = config
        self.schema = load_schema(config.schema_, base=base) if schema is None else schema
        refs = Refs(schema_path(config.schema_, base) or (base / "pipeline" if base else None), config.schema_.refs)
        self.notes: list[str] = []
        """What is no mistake for sure, but may be one."""
        self.outputs = _outputs(config)
        self.columns = self._columns()
        self.window = self._window()
        self.keep, read = self._where()
        needs = self._needs()
        self._check_described(needs)
        self.decoder = RecordDecoder(
            self.schema, needs=needs, paths=sorted(read), formats=config.schema_.formats, refs=refs
        )
        whole = {"schema": self.schema, "refs": refs.read_documents} if refs.read_documents else self.schema
        self.schema_hash = schema_hash(whole)
        self.time_checks = tuple(
            (reader(need.path), time_parser(need.format), need.path) for need in needs if need.type == "timestamp"
        )
        if config.schema_.on_invalid == "dlq" and "dlq" not in self.outputs:
            raise self.wrong("on_invalid is dlq but no sink has a dlq output; name one, or set drop or fail")

    def wrong(self, reason: str) -> PipelineInvalid:
        """Word a mismatch."""
        return PipelineInvalid(self.config.name, reason)

    @cached_property
    def row_encoder(self) -> RowEncoder:
        """Builds row batches."""
        return RowEncoder(self.columns)

    @cached_property
    def arrow_schemas(self) -> Mapping[str, pa.Schema]:
        """Schema of each output that some sink wants."""
        schemas = {"rows": rows_schema(self.columns), "dlq": dlq_schema()}
        if self.window is not None:
            schemas["windows"] = windows_schema(self.window.keys, self.window.values)
        return {name: schema for name, schema in schemas.items() if name in self.outputs}

    def _check_described(self, needs: Sequence[Need]) -> None:
        """Name the fields that outputs read and the schema does not describe.

        Where the schema forbids such fields the output would always be null, which is refused; else it is a note.
        """
        described = (self.schema or {}).get("properties")
        if not described:
            return
        for path in dict.fromkeys(need.path for need in needs):
            if property_at(self.schema, path) is not None or _is_open(self.schema, path):
                continue
            if path in described and path != join_path([path]):
                raise self.wrong(f"{path!r} is one name in the schema; write {join_path([path])!r}")
            names = list(described)
            near = did_you_mean(split_path(path)[0], names).partition("; known")[0]
            text = f"{path!r} is in no schema{near}"
            if (self.schema or {}).get("additionalProperties") is False:
                raise self.wrong(f"{text}, and the schema forbids further fields: it would always be null")
            self.notes.append(f"{text}: its values are checked by the type of the column only")

    def _columns(self) -> tuple[Column, ...]:
        declared = self.config.rows.columns
        if declared:
            return tuple(Column(name=n, path=c.field, type=c.type, format=c.format) for n, c in declared.items())
        if "rows" not in self.outputs:
            return ()
        names = (self.schema or {}).get("properties", {})
        if not names:
            raise self.wrong("rows need columns: declare rows.columns, or a schema with properties")
        odd = [name for name in names if not name.isidentifier() or name.startswith("_")]
        if odd:
            raise self.wrong(f"the properties {odd} cannot name columns; declare rows.columns")
        return tuple(
            Column(name=name, path=join_path([name]), type=column_type(self.schema, name) or "json") for name in names
        )

    def _where(self) -> tuple[where.Keep | None, set[str]]:
        if self.config.where is None:
            return None, set()
        node = where.parse(self.config.where)
        read = where.field_paths(node)
        if self.schema is not None and self.schema.get("properties"):
            for path in sorted(read):
                if property_at(self.schema, path) is None:
                    raise self.wrong(f"where reads {path!r}, which the schema does not describe")
        python: dict[str, set[type]] = {
            "string": {str},
            "integer": {int, float},
            "number": {int, float},
            "boolean": {bool},
        }
        for path, types in where.literal_types(node).items():
            kinds = json_types(self.schema, path) - {"null"}
            allowed = {each for kind in kinds for each in python.get(kind, ())}
            if kinds <= set(python) and allowed and not types <= allowed:
                names = ", ".join(sorted(each.__name__ for each in types - allowed))
                raise self.wrong(f"where compares {path!r}, of type {'/'.join(sorted(kinds))}, with {names}")
        return where.emit(node), read

    def _window(self) -> WindowPlan | None:
        config = self.config.window
        if config is None:
            if "windows" in self.outputs:
                raise self.wrong("a sink has a windows output but the pipeline has no window")
            return None
        keys = tuple(
            Column(name=column_name(path), path=path, type=self._type_of(path, "string")) for path in config.key
        )
        names = [*(key.name for key in keys), *config.aggs]
        if clash := [name for name in names if names.count(name) > 1 or name in _RESERVED]:
            raise self.wrong(f"the window's columns {sorted(set(clash))} are named twice or reserved")
        if odd := [key.path for key in keys if key.type in ("json", "number")]:
            raise self.wrong(
                f"cannot group by {odd}: a key must be text, a whole number, a boolean or a timestamp's text"
            )
        parts = ", ".join(access(key.path) for key in keys)
        return WindowPlan(
            config=config,
            keys=keys,
            values=tuple((name, self._agg_type(agg.op, agg.field)) for name, agg in config.aggs.items()),
            reducer=make_reducer([(agg.op, agg.field) for agg in config.aggs.values()]),
            key_of=compile_function("key", f"def key(r):\n    return ({parts}{',' if parts else ''})\n", {}),
            read_time=reader(config.time.field),
            parse_time=time_parser(config.time.format),
            max_future_us=None if config.max_future_s is None else round(config.max_future_s * 1e6),
            definition=_definition(config),
        )

    def _type_of(self, path: str, default: ColumnType) -> ColumnType:
        """Type of a field: the schema's, else that of a declared column, else `default`."""
        known = column_type(self.schema, path)
        if known is not None:
            return known
        declared = [column.type for column in self.columns if column.path == path and column.type != "timestamp"]
        return declared[0] if declared else default

    def _agg_type(self, op: str, path: str | None) -> ColumnType:
        if op == "count" or path is None:
            return "integer"
        kind = self._type_of(path, "number")
        if kind in ("integer", "number"):
            return "number" if op == "mean" else kind
        if op in ("min", "max") and kind == "string":
            return "string"
        raise self.wrong(f"{op} of {path!r} needs a number, the field is {kind}")

    def _needs(self) -> list[Need]:
        needs = [Need(column.path, column.type, column.format) for column in self.columns]
        if self.window is not None:
            config = self.window.config
            needs.append(Need(config.time.field, "timestamp", config.time.format))
            needs += [Need(key.path, key.type) for key in self.window.keys]
            needs += [
                Need(agg.field, self._type_of(agg.field, "number"))
                for agg in config.aggs.values()
                if agg.field is not None and agg.op != "count"
            ]
            needs += [
                Need(agg.field, column_type(self.schema, agg.field) or "json")
                for agg in config.aggs.values()
                if agg.field is not None and agg.op == "count"
            ]
        return list(dict.fromkeys(needs))


def _is_open(schema: Mapping[str, Any] | None, path: str) -> bool:
    """Tell whether the schema may describe a field by other means than `properties`."""
    found: Any = schema
    for name in split_path(path):
        if not isinstance(found, Mapping):
            return False
        if found.keys() & {"$ref", "allOf", "anyOf", "oneOf", "patternProperties", "$dynamicRef", "if"}:
            return True
        found = (found.get("properties") or {}).get(name)
    return False


def _outputs(config: PipelineConfig) -> frozenset[str]:
    found: set[str] = set()
    for sink in config.sinks:
        taken = set(sink.outputs())
        if sink.takes_windows_if_any and config.window is None:
            taken.discard("windows")
        found |= taken
    return frozenset(found)


def _definition(config: WindowConfig) -> str:
    """Fingerprint what the stored windows depend on."""
    return sha256(config.model_dump_json(exclude={"on_late", "max_future_s", "grace_s"}).encode()).hexdigest()[:16]
