"""Whole commands: fifty empty tasks against ``dagster job execute``, and the check of a file of a thousand."""

from __future__ import annotations

import shutil
import sys
import tempfile
from pathlib import Path

from benchmarks.harness import Case, compare

JOB = """\
import dagster as dg
from dagster import DependencyDefinition as Needs

def work(_context, _inputs):
    yield dg.Output(None, "done")

def op(index):
    ins = {"after": dg.In(dg.Nothing)} if index >= 10 else {}
    return dg.OpDefinition(work, f"t{index}", ins=ins, outs={"done": dg.Out(dg.Nothing)})

needs = {f"t{index}": {"after": Needs(f"t{index - 10}", "done")} if index >= 10 else {} for index in range(50)}
graph = dg.GraphDefinition(name="fifty", node_defs=[op(index) for index in range(50)], dependencies=needs)
defs = dg.Definitions(jobs=[graph.to_job(executor_def=dg.in_process_executor)])
"""


def dag(count: int, width: int, executor: str) -> str:
    """Write a DAG file of `width` chains."""
    lines = ["name: fifty", "kind: op", f"executor: {executor}", "tasks:"]
    for index in range(count):
        needs = f", needs: [t{index - width}]" if index >= width else ""
        lines.append(f"  - {{name: t{index}, call: 'builtins:dict'{needs}}}")
    return "\n".join(lines) + "\n"


def main(rounds: int = 3) -> None:
    """Run it; the goals are 0.8 of Dagster's CPU time, and one second for the thousand."""
    with tempfile.TemporaryDirectory() as folder:
        root, bin_folder = Path(folder), Path(sys.executable).parent
        (root / "fifty.py").write_text(JOB)
        (root / "threads.yaml").write_text(dag(50, 10, "threads"))
        (root / "in_process.yaml").write_text(dag(50, 10, "in_process"))
        (root / "thousand.yaml").write_text(dag(1000, 10, "threads"))

        def fresh(home: Path) -> None:
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir()
            (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

        def case(name: str, *command: str) -> Case:
            home = root / f"home_{name.replace(' ', '_')}"
            program = str(bin_folder / command[0])
            return Case(name, [program, *command[1:]], env={"DAGSTER_HOME": str(home)}, before=lambda: fresh(home))

        compare(
            "core_fifty_tasks",
            [
                case("dagster job execute", "dagster", "job", "execute", "-f", str(root / "fifty.py"), "-j", "fifty"),
                case("tidemill threads", "tidemill", "dag", "run", str(root / "threads.yaml")),
                case("tidemill in_process", "tidemill", "dag", "run", str(root / "in_process.yaml")),
            ],
            baseline="dagster job execute",
            rounds=rounds,
            packages=["dagster", "tidemill-core"],
            note="whole process, 50 tasks that do nothing, SQLite home made anew before each run.",
        )
        compare(
            "core_validate",
            [
                case("tidemill --help", "tidemill", "--help"),
                case("validate 50 tasks", "tidemill", "dag", "validate", str(root / "threads.yaml")),
                case("validate 1000 tasks", "tidemill", "dag", "validate", str(root / "thousand.yaml")),
            ],
            baseline="tidemill --help",
            rounds=rounds,
            packages=["tidemill-core"],
            note="whole process.",
        )


if __name__ == "__main__":
    main()
