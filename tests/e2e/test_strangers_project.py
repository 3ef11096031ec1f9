"""A stranger's project: outside the workspace, in an environment of its own, from our built wheels alone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path

import pytest
from tidemill_core.settings import StorageOptions

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
ROOT = Path(__file__).resolve().parents[2]
DG = [
    f"dagster=={version('dagster')}",
    f"dagster-dg-cli=={version('dagster')}",
    f"create-dagster=={version('dagster')}",
]
COMPONENTS = [
    "tidemill_core.ResourcesComponent",
    "tidemill_core.DagComponent",
    "tidemill_core.AssetsComponent",
    "tidemill_loader.LoadComponent",
    "tidemill_sync.SyncComponent",
    "tidemill_stream.StreamDrainComponent",
    "tidemill_stream.StreamServiceComponent",
    "tidemill_lineage.LineageComponent",
    "tidemill_ingest_api.IngestComponent",
]
FAN_OUT = """
name: files
tasks:
  - {name: list, call: "listing:names", outputs: [names]}
  - name: each
    needs: [list]
    matrix: {name: "${outputs.list.names}"}
    run: echo size=$(printf %s ${matrix.name} | wc -c) >> $TIDEMILL_OUTPUTS
    outputs: [size]
  - {name: sum, needs: [each], run: "echo ${outputs.each.size} > sizes.txt"}
"""
ROUND_TRIP = """
import sys
from tidemill_core.storage import open_store

store = open_store(sys.argv[1])
store.put("a/b.txt", b"hello")
print(store.get("a/b.txt").decode(), [each.key for each in store.list("a/")])
"""


class Environment:
    """A virtual environment without our workspace, and a home of its own."""

    def __init__(self, folder: Path, wheels: Path) -> None:
        self.bin, self.wheels, self.home = folder / "venv/bin", wheels, folder / "home"
        run(["uv", "venv", "--quiet", "--python", sys.executable, str(folder / "venv")])

    def install(self, *requirements: str) -> None:
        """Install from our wheels, and the rest from the registry."""
        python = str(self.bin / "python")
        command = ["uv", "pip", "install", "--quiet", "--python", python, "--find-links", str(self.wheels)]
        run([*command, *requirements])

    def __call__(
        self, *command: str, cwd: Path, code: int = 0, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a program of the environment, and insist on its exit code."""
        names = ("TIDEMILL_", "DAGSTER_", "AWS_", "VIRTUAL_ENV", "PYTHONPATH")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(names)}
        path = f"{self.bin}:{clean['PATH']}"
        more = {"TIDEMILL_HOME": str(self.home), "PATH": path, **(env or {})}
        return run([str(self.bin / command[0]), *command[1:]], cwd=cwd, env={**clean, **more}, code=code)


def run(
    command: list[str], *, cwd: Path = ROOT, env: Mapping[str, str] | None = None, code: int = 0
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300)
    assert code == done.returncode, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    run(["uv", "build", "--quiet", "--all-packages", "--wheel", "--out-dir", str(folder)])
    return folder


def test_core_alone_checks_dag_files_and_names_the_extras_it_lacks(wheels: Path, tmp_path: Path) -> None:
    alone = Environment(tmp_path, wheels)
    alone.install("tidemill-core")
    (tmp_path / "listing.py").write_text("def names():\n    return []\n")
    (tmp_path / "files.yaml").write_text(FAN_OUT)

    valid = alone("tidemill", "dag", "validate", "files.yaml", cwd=tmp_path)
    refused = alone("tidemill", "dag", "run", "files.yaml", cwd=tmp_path, code=3)
    keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
    stores = alone("python", "-c", ROUND_TRIP, "s3://bucket", cwd=tmp_path, code=1, env=keys)
    table = alone("python", "-c", "from tidemill_core.postgres import copy_into", cwd=tmp_path, code=1)

    assert "1 DAG valid: files" in valid.stdout
    assert "error: dagster is not installed; it comes with the extra: pip install 'tidemill-core[dagster]'" in (
        refused.stderr
    )
    assert "tidemill-core[s3]" in stores.stderr
    assert "tidemill-core[postgres]" in table.stderr


def test_a_project_of_its_own_scaffolds_checks_launches_and_runs_a_fan_out(
    wheels: Path, tmp_path: Path, versitygw_bucket: tuple[str, StorageOptions]
) -> None:
    stranger = Environment(tmp_path, wheels)
    stranger.install("tidemill-core", *DG)
    stranger("create-dagster", "project", "my_flow", "--no-uv-sync", cwd=tmp_path)
    project = tmp_path / "my_flow"
    stranger.install("--editable", str(project))
    (project / "listing.py").write_text("def names():\n    return ['a', 'bb', 'it\\'s']\n")
    (project / "files.yaml").write_text(FAN_OUT)

    stranger("dg", "scaffold", "defs", "tidemill_core.DagComponent", "hello", cwd=project)
    stranger("dg", "check", "defs", cwd=project)
    launched = stranger("dg", "launch", "--job", "hello", cwd=project)
    stranger("tidemill", "dag", "run", "files.yaml", cwd=project)

    assert "RUN_SUCCESS" in launched.stdout + launched.stderr
    assert "[1, 2, 4]\n" == (project / "sizes.txt").read_text()

    url, options = versitygw_bucket
    assert options.s3_secret_access_key is not None
    env = {
        "AWS_ACCESS_KEY_ID": str(options.s3_access_key_id),
        "AWS_SECRET_ACCESS_KEY": options.s3_secret_access_key.get_secret_value(),
        "TIDEMILL_S3_ENDPOINT_URL": str(options.s3_endpoint_url),
    }
    stranger("python", "-c", ROUND_TRIP, url, cwd=project, env=env, code=1)
    stranger.install("tidemill-core[s3]")
    stored = stranger("python", "-c", ROUND_TRIP, url, cwd=project, env=env)
    assert "hello ['a/b.txt']\n" == stored.stdout


def test_every_components_scaffold_loads_as_written_beside_all_others(wheels: Path, tmp_path: Path) -> None:
    stranger = Environment(tmp_path, wheels)
    packages = ("loader", "sync", "stream", "lineage", "ingest-api")
    stranger.install("tidemill-core", *(f"tidemill-{name}" for name in packages), *DG)
    stranger("create-dagster", "project", "my_flow", "--no-uv-sync", cwd=tmp_path)
    project = tmp_path / "my_flow"
    stranger.install("--editable", str(project))

    listed = stranger("dg", "list", "components", "--json", cwd=project).stdout
    for number, component in enumerate(COMPONENTS[1:]):
        stranger("dg", "scaffold", "defs", component, f"c{number}", cwd=project)
    stranger("dg", "check", "yaml", cwd=project)
    stranger("dg", "check", "defs", cwd=project)
    launched = stranger("dg", "launch", "--assets", "delays", cwd=project)

    assert all(f'"{component}"' in listed for component in COMPONENTS)
    assert "RUN_SUCCESS" in launched.stdout + launched.stderr
    written = project / "src/my_flow/defs/c0/defs.yaml"
    written.write_text(written.read_text().replace("tidemill_core.DagComponent", "tidemill_core.defs.DagComponent"))
    stranger("dg", "check", "defs", cwd=project)


@pytest.fixture
def versitygw_bucket(request: pytest.FixtureRequest) -> tuple[str, StorageOptions]:
    from tidemill_core.testing.objects import s3_bucket

    return s3_bucket(request.getfixturevalue("versitygw"))
