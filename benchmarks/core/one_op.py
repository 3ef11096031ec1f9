"""One op, as a whole command: ``dagster job execute`` against ``tidemill dag run`` of the same.

Both run in process on a fresh SQLite home of their own, with compiled bytecode.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Case, compare

DAG = """\
name: one
executor: in_process
tasks:
  - name: nothing
    kind: op
    call: builtins:dict
"""
JOB = """\
import dagster as dg

@dg.op
def nothing() -> dict:
    return dict()

@dg.job(executor_def=dg.in_process_executor)
def one():
    nothing()

defs = dg.Definitions(jobs=[one])
"""


def main(rounds: int = 5) -> None:
    """Run it; the goal is at most 0.6 of Dagster's CPU seconds."""
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        (root / "one.yaml").write_text(DAG)
        (root / "one.py").write_text(JOB)
        bin_folder = Path(sys.executable).parent

        def fresh(home: Path) -> None:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

        def case(name: str, *command: str, home: str | None) -> Case:
            env = {} if home is None else {"DAGSTER_HOME": str(root / home)}
            return Case(name, command, env=env, before=None if home is None else lambda: fresh(root / home))

        dagster = [str(bin_folder / "dagster"), "job", "execute", "-f", str(root / "one.py"), "-j", "one"]
        tidemill = [str(bin_folder / "tidemill"), "dag", "run", str(root / "one.yaml")]
        compare(
            "core_one_op",
            [
                case("dagster job execute", *dagster, home="home_dagster"),
                case("tidemill dag run", *tidemill, home="home_tidemill"),
                case("tidemill dag run --ephemeral", *tidemill, "--ephemeral", home="home_ephemeral"),
            ],
            baseline="dagster job execute",
            rounds=rounds,
            packages=["dagster", "tidemill-core"],
            note="whole process, one op that does nothing, SQLite home made anew before each run.",
        )


if __name__ == "__main__":
    main()
