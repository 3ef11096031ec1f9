"""`tidemill dag` as a shell sees it: exit codes, output, interrupts, and a run whose process was killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

FILE = """
name: quick
params: {n: {type: int, default: 1}}
tasks:
  - {name: a, run: "echo n=${params.n}"}
---
name: broken
tasks:
  - {name: a, run: "echo working; exit 4"}
---
name: later
tasks:
  - {name: a, run: "exit 75", retry: {count: 1, delay_s: 0}}
---
name: endless
tasks:
  - {name: a, run: "touch started; exec sleep 300"}
  - {name: b, run: "true", needs: [a]}
---
name: stubborn
tasks:
  - {name: a, run: "trap '' TERM; echo $$ > pid; touch started; while true; do sleep 1; done"}
"""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dags")
    (folder / "dags.yaml").write_text(FILE)
    return folder


def environment(home: Path) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TIDEMILL_", "DAGSTER_"))}
    return {**kept, "TIDEMILL_HOME": str(home / "home")}


def tidemill(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    code = "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"
    return subprocess.run(
        [sys.executable, "-c", code, "dag", *arguments],
        env=environment(home),
        cwd=home,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_run_prints_one_json_object_and_records_an_ordinary_run(home: Path) -> None:
    done = tidemill(home, "run", "dags.yaml:quick", "--param", "n=7", "--json")
    run = json.loads(done.stdout)
    logs = tidemill(home, "logs", "last", "--task", "a")
    listed = json.loads(tidemill(home, "status", "quick", "--json").stdout)

    assert (0, "done") == (done.returncode, run["state"])
    assert logs.stdout == "[a] n=7\n"
    assert run["id"] in {each["id"] for each in listed}


def test_ephemeral_run_keeps_the_output_of_tasks_off_stdout(home: Path) -> None:
    done = tidemill(home, "run", "dags.yaml:quick", "--ephemeral", "--json")

    assert json.loads(done.stdout)["state"] == "done"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["run", "dags.yaml:broken"], 1, "exit code 4"),
        (["run", "dags.yaml:later"], 75, "failed for now"),
        (["run", "dags.yaml:quick", "--param", "n=x"], 3, "'x' is not an int"),
        (["run", "dags.yaml:quick", "--param", "n"], 2, "not NAME=VALUE"),
        (["run", "dags.yaml:nothing"], 3, "has no DAG 'nothing'"),
        (["run", "dags.yaml"], 3, "say which"),
        (["status", "zzz"], 3, "no such run"),
    ],
)
def test_exit_code_says_what_kind_of_end_it_was(home: Path, arguments: Sequence[str], code: int, text: str) -> None:
    done = tidemill(home, *arguments)

    assert code == done.returncode, done.stderr
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_broken_file_is_code_3_with_file_and_line(home: Path) -> None:
    (home / "wrong.yaml").write_text("name: w\ntasks:\n  - {name: a, rnu: x}\n")

    done = tidemill(home, "validate", "wrong.yaml")

    assert done.returncode == 3
    assert "wrong.yaml:3:" in done.stderr


def test_validate_needs_neither_dagster_nor_polars(home: Path) -> None:
    code = (
        "import sys\nfrom tidemill_core.cli import cli\n"
        "cli.main(['dag', 'validate', 'dags.yaml'], standalone_mode=False)\n"
        "assert not {'dagster', 'polars', 'pyarrow'} & set(sys.modules)"
    )

    done = subprocess.run([sys.executable, "-c", code], cwd=home, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr


def start(home: Path, name: str, *options: str) -> subprocess.Popen[str]:
    (home / "started").unlink(missing_ok=True)
    code = "import sys; from tidemill_core.cli import main; main(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, "dag", "run", f"dags.yaml:{name}", *options],
        env=environment(home),
        cwd=home,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    end = time.monotonic() + 90
    while not (home / "started").exists():
        assert process.poll() is None, process.stdout.read()
        assert time.monotonic() < end
        time.sleep(0.05)
    return process


@pytest.mark.parametrize("executor", ["threads", "in_process"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupt_stops_running_tasks_and_cancels_the_run(home: Path, executor: str, number: int) -> None:
    process = start(home, "endless", "--executor", executor)

    process.send_signal(number)
    process.wait(timeout=60)

    run = json.loads(tidemill(home, "status", "last", "--json").stdout)
    assert process.returncode == 130
    assert run["state"] == "canceled"
    assert {"a": "canceled", "b": "not run"} == {task["name"]: task["state"] for task in run["tasks"]}


def is_running(pid: int) -> bool:
    """Tell whether a process is there and no zombie; waits a little for one that was just killed."""
    stat = Path(f"/proc/{pid}/stat")
    end = time.monotonic() + 10
    while stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z":
        if time.monotonic() > end:
            return True
        time.sleep(0.05)
    return False


def test_what_a_component_says_of_its_attributes_is_a_fault_of_the_file(home: Path) -> None:
    (home / "wrong.yaml").write_text(
        "name: w\ntasks:\n  - {name: a, use: tidemill_core.AssetsComponent, with: {load: ['gone:x']}}\n"
    )

    done = tidemill(home, "validate", "wrong.yaml", "--components")

    assert (done.returncode, "Traceback" in done.stderr) == (3, False)
    assert "wrong.yaml:3" in done.stderr
    assert "gone:x cannot be imported" in done.stderr


def test_second_interrupt_ends_at_once(home: Path) -> None:
    process = start(home, "stubborn")

    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.wait(timeout=60)

    assert process.returncode == 130
    assert not is_running(int((home / "pid").read_text()))
    assert json.loads(tidemill(home, "status", "last", "--json").stdout)["state"] == "canceled"


def test_killed_process_leaves_a_run_that_is_failed_and_can_be_retried(home: Path) -> None:
    process = start(home, "endless")

    process.kill()
    process.wait(timeout=60)

    run = json.loads(tidemill(home, "status", "last", "--json").stdout)
    assert run["state"] == "failed"
    text = (home / "dags.yaml").read_text().replace("touch started; exec sleep 300", "true")
    (home / "fixed.yaml").write_text(text)
    again = tidemill(home, "run", "fixed.yaml:endless", "--retry-failed", run["id"], "--json")
    assert (0, "done") == (again.returncode, json.loads(again.stdout)["state"])


def test_graph_plan_and_list_need_no_run(home: Path) -> None:
    drawn = tidemill(home, "graph", "dags.yaml:endless")
    page = tidemill(home, "graph", "dags.yaml:endless", "--html", "g.html")
    planned = json.loads(tidemill(home, "plan", "dags.yaml:endless", "--json").stdout)
    listed = json.loads(tidemill(home, "list", "dags.yaml", "--json").stdout)

    assert "t0 --> t1" in drawn.stdout
    assert page.returncode == 0
    assert "<svg" in (home / "g.html").read_text()
    assert [("a", 0), ("b", 1)] == [(step["step"], step["level"]) for step in planned["steps"]]
    assert ["quick", "broken", "later", "endless", "stubborn"] == [each["name"] for each in listed]
