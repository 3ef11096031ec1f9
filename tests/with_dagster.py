"""Run core's tests of the executors, DAG files and metrics on another Dagster: the lowest allowed, or the newest.

``python tests/with_dagster.py lowest`` (or ``newest``, or a version) makes an environment of its own in which
everything but Dagster is as locked. Run by ``.ci/run``; further arguments go to pytest.
"""

import re
import subprocess
import sys
import tempfile
import tomllib
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CORE = ROOT / "packages/core"
TESTS = [
    "unit/test_dagster_names.py",
    "unit/test_dag_triggers.py",
    "integration/test_executor_threads.py",
    "integration/test_executor_logs.py",
    "integration/test_dag_runs.py",
    "integration/test_dag_outputs.py",
    "integration/test_metrics.py",
]


def main(wanted: str, pytest_arguments: list[str]) -> int:
    """Make the environment and run the tests; the exit code is pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        python = Path(folder) / "venv/bin/python"
        constraints = Path(folder) / "constraints.txt"
        constraints.write_text(locked_without_dagster())
        run("uv", "venv", "--quiet", "--python", sys.executable, str(python.parents[1]))
        exact = [f"dagster=={version_of(wanted)}"] if wanted != "newest" else []
        packages = [f"{CORE}[all,testing]", "pytest-timeout", "pytest-xdist", *exact]
        run("uv", "pip", "install", "--quiet", "--python", str(python), "-c", str(constraints), *packages)
        code = "from importlib.metadata import version; print(version('dagster'))"
        found = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True).stdout.strip()
        print("dagster", found, flush=True)
        if wanted == "newest" and found == version("dagster"):
            print("the newest Dagster is the locked one, with which every test runs")
            return 0
        tests = [str(CORE / "tests" / each) for each in TESTS]
        command = [str(python), "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *pytest_arguments, *tests]
        return subprocess.run(command, cwd=ROOT, check=False).returncode


def version_of(wanted: str) -> str:
    """The lowest version that core allows, or the one that was named."""
    if wanted != "lowest":
        return wanted
    declared = tomllib.loads((CORE / "pyproject.toml").read_text())["project"]["optional-dependencies"]["dagster"]
    return next(found[1] for each in declared if (found := re.fullmatch(r"dagster>=([\d.]+),<.*", each)))


def locked_without_dagster() -> str:
    """Every locked version but those of Dagster's own packages, which go together."""
    command = ["uv", "export", "--quiet", "--locked", "--all-packages", "--all-groups", "--all-extras", "--no-hashes"]
    lines = subprocess.run(
        [*command, "--no-emit-workspace", "--no-header", "--no-annotate"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()
    return "\n".join(line for line in lines if not line.startswith("dagster")) + "\n"


def run(*command: str) -> None:
    """Run a command that must not fail."""
    subprocess.run(command, cwd=ROOT, check=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
