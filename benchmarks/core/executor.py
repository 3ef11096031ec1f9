"""Fifty tasks of one second, ten chains of five: wall time from run start to run end against the ideal 5 s.

`threads` (Tidemill's) against Dagster's `multiprocess` and against Prefect's thread pool, each in a process
of its own on a fresh SQLite home.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Case, compare
from benchmarks.peers import peer_python

CHAINS, LENGTH, TASK_S = 10, 5, 1.0
SCRIPT = """\
import sys, time
import dagster as dg
from tidemill_core.defs.executor.threads import executor_by_name


def make(executor, chains, length, seconds):
    def work(_context, _inputs):
        time.sleep(float(seconds))
        yield dg.Output(None, "done")

    ops, needs = [], {}
    for chain in range(int(chains)):
        for index in range(int(length)):
            name, ins = f"t{chain}_{index}", {"after": dg.In(dg.Nothing)} if index else {}
            ops.append(dg.OpDefinition(work, name, ins=ins, outs={"done": dg.Out(dg.Nothing)}))
            needs[name] = {"after": dg.DependencyDefinition(f"t{chain}_{index - 1}", "done")} if index else {}
    graph = dg.GraphDefinition(name="fifty", node_defs=ops, dependencies=needs)
    limit = None if executor == "in_process" else int(chains)
    if executor == "threads_without_step_logs":
        # The same executor with its capture of what each step prints taken out: what that capture costs.
        from contextlib import nullcontext
        from tidemill_core.defs.executor import threads
        threads.routed_output = lambda *_: nullcontext()
        executor = "threads"
    return graph.to_job(executor_def=executor_by_name(executor, limit))


if __name__ == "__main__":
    job = dg.build_reconstructable_job("fifty", "make", reconstructable_args=tuple(sys.argv[1:]))
    with dg.DagsterInstance.get() as instance:
        before = time.process_time()
        result = dg.execute_job(job, instance)
        used = time.process_time() - before
        record = instance.get_run_record_by_id(result.run_id)
        assert result.success
        print(f"FACTS run_s={record.end_time - record.start_time:.4f} engine_cpu_s={used:.4f}")
"""
PREFECT = ("prefect==3.8.8", "fastapi<0.150")
PREFECT_SCRIPT = """\
import sys, time
from prefect import flow, task
from prefect.task_runners import ThreadPoolTaskRunner

chains, length, seconds = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])


@task
def work(after):
    time.sleep(seconds)


@flow(task_runner=ThreadPoolTaskRunner(max_workers=chains))
def fifty():
    began = time.monotonic()
    last = [None] * chains
    for _ in range(length):
        last = [work.submit(each) for each in last]
    for each in last:
        each.result()
    return time.monotonic() - began


before = time.process_time()
run_s = fifty()
print(f"FACTS run_s={run_s:.4f} engine_cpu_s={time.process_time() - before:.4f}")
"""


def facts(output: str) -> Mapping[str, float]:
    """Read the figures a run printed."""
    line = next(line for line in output.splitlines() if line.startswith("FACTS "))
    return {name: float(value) for name, value in (part.split("=") for part in line.split()[1:])}


def cases(root: Path, executors: tuple[str, ...], seconds: float) -> list[Case]:
    """One case per executor, each with a home made anew before every run."""
    (root / "fifty.py").write_text(SCRIPT)

    def fresh(home: Path) -> None:
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        (home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")

    def case(executor: str) -> Case:
        home = root / f"home_{executor}"
        command = [sys.executable, str(root / "fifty.py"), executor, str(CHAINS), str(LENGTH), str(seconds)]
        env = {"DAGSTER_HOME": str(home), "PYTHONPATH": str(root)}
        return Case(executor, command, env=env, before=lambda: fresh(home), facts=facts)

    return [case(executor) for executor in executors]


def prefect_cases(root: Path, seconds: float) -> list[Case]:
    """The same chains in Prefect, with its ephemeral server; none where it cannot be installed."""
    python = peer_python("prefect", PREFECT)
    if python is None:
        return []
    script, home = root / "prefect_fifty.py", root / "home_prefect"
    script.write_text(PREFECT_SCRIPT)
    env = {
        "PREFECT_HOME": str(home),
        "PREFECT_LOGGING_LEVEL": "ERROR",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
    }
    command = [str(python), str(script), str(CHAINS), str(LENGTH), str(seconds)]
    return [Case("prefect 3.8.8 threads", command, env=env, before=lambda: home.mkdir(exist_ok=True), facts=facts)]


def main(rounds: int = 3) -> None:
    """Run it; the goals are 1.3 times the ideal for waiting tasks, and 15 ms of CPU per empty one."""
    with tempfile.TemporaryDirectory() as folder:
        root, ideal_s = Path(folder), LENGTH * TASK_S
        compare(
            "core_executor_waiting",
            [*cases(root, ("multiprocess", "threads"), TASK_S), *prefect_cases(root, TASK_S)],
            baseline="multiprocess",
            rounds=rounds,
            packages=["dagster", "tidemill-core"],
            note=f"{CHAINS} chains of {LENGTH} tasks that wait {TASK_S:g} s; run_s is run start to run end, "
            f"ideal {ideal_s:g} s.",
        )
        compare(
            "core_executor_empty",
            cases(root, ("in_process", "threads", "threads_without_step_logs"), 0),
            baseline="in_process",
            rounds=rounds,
            packages=["dagster", "tidemill-core"],
            note=f"{CHAINS * LENGTH} tasks that do nothing; engine_cpu_s is the CPU time of executing the run alone.",
        )


if __name__ == "__main__":
    main()
