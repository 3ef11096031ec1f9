"""Run named commands in alternation and compare wall time, CPU seconds and memory.

    from benchmarks.harness import Case, compare
    compare("one_op", [Case("tidemill", [...]), Case("dagster", [...])], rounds=5, baseline="dagster")

Every round runs each case once, in an order that is reversed every other round. CPU
seconds are user + system of the whole process tree of the command (servers started
before are not counted); peak RSS is that of its largest process. Results go to
``benchmarks/results/<name>.json`` with versions and machine, and to a table on stdout.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One run of one case."""

    wall_s: float
    cpu_s: float
    rss_mib: float
    facts: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """A named command; `before` runs untimed before each run, `facts` reads figures the command printed."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    before: Callable[[], None] | None = None
    facts: Callable[[str], Mapping[str, float]] | None = None
    ok_codes: tuple[int, ...] = (0,)


def run_once(case: Case, *, timeout_s: float = 600) -> Sample:
    """Run one case in a child of its own, and measure that child's whole tree."""
    if case.before:
        case.before()
    env = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"} | dict(case.env)
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(read)
        os._exit(_measure(case, env, write, timeout_s))
    os.close(write)
    with os.fdopen(read) as pipe:
        report = json.loads(pipe.read() or "{}")
    os.waitpid(pid, 0)
    if report.get("code") not in case.ok_codes:
        raise RuntimeError(f"{case.name} ended with {report.get('code')}:\n{report.get('output', '')[-3000:]}")
    facts = dict(case.facts(report["output"])) if case.facts else {}
    return Sample(wall_s=report["wall_s"], cpu_s=report["cpu_s"], rss_mib=report["rss_mib"], facts=facts)


def _measure(case: Case, env: Mapping[str, str], write: int, timeout_s: float) -> int:
    """Run the command in a forked child, so that RUSAGE_CHILDREN holds nothing else."""
    start = time.perf_counter()
    try:
        done = subprocess.run(
            list(case.command),
            env=dict(env),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        code, output = done.returncode, done.stdout
    except subprocess.TimeoutExpired:
        code, output = -1, f"no end after {timeout_s:g} s"
    wall = time.perf_counter() - start
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    report = {
        "code": code,
        "output": output[-200_000:],
        "wall_s": wall,
        "cpu_s": used.ru_utime + used.ru_stime,
        "rss_mib": used.ru_maxrss / 1024,
    }
    with os.fdopen(write, "w") as pipe:
        pipe.write(json.dumps(report))
    return 0


def compare(
    name: str, cases: Sequence[Case], *, baseline: str, rounds: int = 5, packages: Sequence[str] = (), note: str = ""
) -> dict[str, Any]:
    """Run every case `rounds` times in alternation; print the table, write the JSON, return it."""
    samples: dict[str, list[Sample]] = {case.name: [] for case in cases}
    for number in range(rounds):
        for case in cases if number % 2 == 0 else list(reversed(cases)):
            samples[case.name].append(run_once(case))
            last = samples[case.name][-1]
            print(
                f"{name} {number + 1}/{rounds} {case.name}: {last.wall_s:.2f} s, {last.cpu_s:.2f} CPU s",
                file=sys.stderr,
            )
    return report(name, samples, baseline=baseline, packages=packages, note=note)


def report(
    name: str, samples: Mapping[str, Sequence[Sample]], *, baseline: str, packages: Sequence[str] = (), note: str = ""
) -> dict[str, Any]:
    """Summarise samples: minimum and median per case, ratios of the medians to the baseline's."""
    summary = {case: _summary(found) for case, found in samples.items()}
    base = summary[baseline]
    for row in summary.values():
        row["wall_ratio"] = row["wall_s"]["median"] / base["wall_s"]["median"]
        row["cpu_ratio"] = row["cpu_s"]["median"] / base["cpu_s"]["median"] if base["cpu_s"]["median"] else None
    result = {
        "name": name,
        "note": note,
        "baseline": baseline,
        "cases": summary,
        "samples": {case: [asdict(each) for each in found] for case, found in samples.items()},
        "versions": _versions(packages),
        "machine": {"cpus": os.cpu_count(), "platform": platform.platform(), "python": platform.python_version()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(table(result))
    return result


def table(result: Mapping[str, Any]) -> str:
    """Write a result as a Markdown table."""
    lines = [
        f"### {result['name']}",
        "",
        f"Ratios of medians to `{result['baseline']}`; {result['note']}".rstrip("; "),
        "",
        "| case | wall s (min / median) | x | CPU s (min / median) | x | peak RSS MiB | facts |",
        "|---|---|---|---|---|---|---|",
    ]
    for case, row in result["cases"].items():
        wall, cpu = row["wall_s"], row["cpu_s"]
        facts = ", ".join(f"{key} {value['median']:.4g}" for key, value in row["facts"].items())
        cpu_ratio = "-" if row["cpu_ratio"] is None else f"{row['cpu_ratio']:.2f}"
        lines.append(
            f"| {case} | {wall['min']:.2f} / {wall['median']:.2f} | {row['wall_ratio']:.2f}"
            f" | {cpu['min']:.2f} / {cpu['median']:.2f} | {cpu_ratio} | {row['rss_mib']['median']:.0f} | {facts} |"
        )
    versions = ", ".join(f"{name} {number}" for name, number in result["versions"].items())
    machine = result["machine"]
    return "\n".join([*lines, "", f"{versions}; Python {machine['python']}, {machine['cpus']} cores.", ""])


def _summary(samples: Sequence[Sample]) -> dict[str, Any]:
    def both(values: Sequence[float]) -> dict[str, float]:
        return {"min": min(values), "median": statistics.median(values), "max": max(values)}

    row: dict[str, Any] = {
        "wall_s": both([each.wall_s for each in samples]),
        "cpu_s": both([each.cpu_s for each in samples]),
        "rss_mib": both([each.rss_mib for each in samples]),
        "runs": len(samples),
    }
    row["facts"] = {key: both([each.facts[key] for each in samples]) for key in samples[0].facts}
    return row


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
