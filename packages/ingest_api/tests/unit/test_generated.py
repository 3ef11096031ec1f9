"""What is generated is what the contract says."""

import subprocess
import sys
from pathlib import Path

import pytest
import tidemill_ingest_api.api

PROTO = Path(__file__).parents[2] / "proto"
GENERATED = Path(tidemill_ingest_api.api.__file__).parent / "_generated"
NAME = "tidemill/ingest/v1/ingest"


def test_committed_code_is_what_the_contract_generates(tmp_path):
    pytest.importorskip("grpc_tools")
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        "-I",
        str(PROTO),
        f"--python_out={tmp_path}",
        f"--pyi_out={tmp_path}",
    ]
    subprocess.run([*command, f"{NAME}.proto"], check=True)

    for suffix in ("_pb2.py", "_pb2.pyi"):
        assert (tmp_path / f"{NAME}{suffix}").read_text() == (GENERATED / f"{NAME}{suffix}").read_text()


def test_importing_the_package_and_its_commands_imports_nothing_heavy():
    code = "import sys, tidemill_ingest_api, tidemill_ingest_api.cli\n"
    code += "print([m for m in ('dagster', 'polars', 'pyarrow', 'grpc', 'fastapi', 'httpx', 'psycopg') if m in sys.modules])"

    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert "[]" == out.strip()
