"""Schemas are read as what they are, and refer to files beside them, and to nothing else without leave."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tidemill_stream.config import SchemaConfig
from tidemill_stream.errors import SchemaInvalid
from tidemill_stream.records.schema import Fault, RecordDecoder, load_schema
from tidemill_stream.records.schema_files import Refs, read_schema_file

INTEGER = {"type": "integer"}


def schema_of(ref: str) -> dict:
    return {"type": "object", "required": ["id"], "properties": {"id": {"$ref": ref}}}


def is_valid(decoder: RecordDecoder, raw: bytes) -> bool:
    return not isinstance(decoder.decode(raw), Fault)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "schemas/parts").mkdir(parents=True)
    (tmp_path / "schemas/id.json").write_text(json.dumps(INTEGER))
    (tmp_path / "schemas/parts/id.yaml").write_text("type: integer\n")
    (tmp_path / "schemas/chain.json").write_text(json.dumps({"$ref": "parts/id.yaml"}))
    (tmp_path / "outside.json").write_text(json.dumps(INTEGER))
    (tmp_path / "schemas/link.json").symlink_to(tmp_path / "outside.json")
    return tmp_path / "schemas"


@pytest.mark.parametrize("ref", ["id.json", "./id.json", "parts/id.yaml", "chain.json"])
def test_a_file_beside_the_schema_or_below_is_read(folder: Path, ref: str) -> None:
    refs = Refs(folder / "s.json")

    decoder = RecordDecoder(schema_of(ref), refs=refs)

    assert is_valid(decoder, b'{"id": 1}')
    assert not is_valid(decoder, b'{"id": "x"}')
    assert refs.read_documents


@pytest.mark.parametrize(
    "ref", ["../outside.json", "link.json", "file:///etc/hostname", "http://127.0.0.1:1/x.json", "ftp://a/b"]
)
def test_anything_else_is_refused_and_the_message_names_the_setting(folder: Path, ref: str) -> None:
    with pytest.raises(SchemaInvalid, match=r"schema\.refs"):
        RecordDecoder(schema_of(ref), refs=Refs(folder / "s.json"))


def test_without_a_place_nothing_is_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)

    with pytest.raises(SchemaInvalid):
        RecordDecoder(schema_of("id.json"))


def test_a_folder_that_is_named_is_read(folder: Path) -> None:
    refs = Refs(folder / "s.json", [str(folder.parent)])

    assert is_valid(RecordDecoder(schema_of("../outside.json"), refs=refs), b'{"id": 1}')


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    asked: list[str] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            body = json.dumps(INTEGER).encode()
            self.send_response(302 if self.path.startswith("/moved") else 200)
            self.send_header("Location", "/other/id.json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    made = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}", asked
    made.shutdown()


def test_a_network_is_asked_only_where_a_setting_allows_it(folder: Path, server: tuple[str, list[str]]) -> None:
    url, asked = server
    allowed = Refs(folder / "s.json", [f"{url}/schemas/"])

    assert is_valid(RecordDecoder(schema_of(f"{url}/schemas/id.json"), refs=allowed), b'{"id": 1}')
    for path in ("/other/id.json", "/moved/id.json"):
        with pytest.raises(SchemaInvalid):
            RecordDecoder(schema_of(f"{url}{path}"), refs=Refs(folder / "s.json", [f"{url}/schemas/"]))

    assert ["/schemas/id.json"] == asked
    # A redirect leads out of what was allowed.
    with pytest.raises(SchemaInvalid):
        RecordDecoder(schema_of(f"{url}/moved/id.json"), refs=Refs(folder / "s.json", [f"{url}/moved/"]))
    assert "/other/id.json" not in asked


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("s.json", '{\n\t"type": "object", "x": 1e3}', {"type": "object", "x": 1000.0}),
        ("s.yaml", "type: object\nx: 1e3\non: no\n", {"type": "object", "x": 1000.0, "on": "no"}),
        ("s.json", '\ufeff{"type": "object"}', {"type": "object"}),
        ("s.yaml", "type: object\nx: ${HOME}\n", {"type": "object", "x": "${HOME}"}),
    ],
)
def test_files_are_read_as_what_they_are(tmp_path: Path, name: str, text: str, value: dict) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")

    assert value == read_schema_file(tmp_path / name)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("s.json", '{"type": "object",}', r"s\.json:1"),
        ("s.json", '{"a": 1, "a": 2}', "a: this key is given twice"),
        ("s.yaml", "a: [", r"s\.yaml"),
        ("s.yaml", "", "0 documents"),
        ("s.yaml", "a: 1\n---\nb: 2\n", "2 documents"),
        ("s.json", "[1]", "does not hold an object"),
    ],
)
def test_files_that_are_no_schema_are_refused_with_their_place(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)

    with pytest.raises(SchemaInvalid, match=message):
        load_schema(SchemaConfig(file=tmp_path / name))
