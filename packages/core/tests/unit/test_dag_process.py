"""Commands and callables outside the thread: what they hand back, print, and leave behind; with a real shell."""

import io
import json
import os
import signal
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tidemill_core.dag.errors import BadOutputs, CommandFailed, TaskTemporarilyFailed, TaskTimedOut
from tidemill_core.dag.process import Command, _read_outputs, call_in_process, run_command

HERE = Path("/")
FEW = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def command(run: str | list[str], **rest: Any) -> Command:
    return Command(task="t", run=run, env={}, cwd=HERE, **rest)


def outputs_of(text: str | bytes, folder: Path) -> dict[str, Any]:
    file = folder / "outputs"
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return _read_outputs("t", file)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        # What JSON reads and would write alike is of its type ...
        ("7", 7),
        ("-7", -7),
        ("1.5", 1.5),
        ("true", True),
        ("null", None),
        ('"7"', "7"),
        ("[1, 2]", [1, 2]),
        ('{"a": [1.50]}', {"a": [1.5]}),
        ("123456789012345678901234567890", 123456789012345678901234567890),
        # ... all else is the text that it is.
        ("1.10", "1.10"),
        ("007", "007"),
        ("12e5", "12e5"),
        ("1E400", "1E400"),
        ("-0", "-0"),
        ("1_000", "1_000"),
        ("NaN", "NaN"),
        ("Infinity", "Infinity"),
        ("True", "True"),
        ("2024-01-02", "2024-01-02"),
        ("a=b", "a=b"),
        ("", ""),
        ("[1, 2", "[1, 2"),
        ("[" * 100_000, "[" * 100_000),
    ],
)
def test_a_value_of_a_line_is_json_or_the_text_itself(tmp_path: Path, text: str, value: Any) -> None:
    found = outputs_of(f"x={text}\n", tmp_path)

    assert {"x": value} == found
    assert type(value) is type(found["x"])


@given(
    st.text(st.characters(codec="utf-8", exclude_characters="\n\r\0\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"), max_size=30)
)
@FEW
def test_no_text_comes_out_as_another(tmp_path: Path, text: str) -> None:
    """The text that a later task is given is the one that was written, but for blanks at its ends."""
    from tidemill_core.dag.values import as_text

    found = outputs_of(f"x={text}", tmp_path)["x"]

    written = text.strip()
    if written.startswith(("[", "{", '"')):
        return  # JSON, which may be laid out in other ways
    assert written == as_text(found, where="x")


@given(st.dictionaries(st.text(max_size=5), st.recursive(st.none() | st.integers() | st.text(), st.lists), max_size=4))
@FEW
def test_a_json_object_is_read_whole(tmp_path: Path, values: dict[str, Any]) -> None:
    assert values == outputs_of(json.dumps(values, indent=1), tmp_path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"rows", "wrote the output line 'rows'; use name=value"),
        (b"=7", "wrote the output line '=7'"),
        (b"a=1\n\n b \n", "output line 'b'"),
        (b"a=1\na=2", "wrote the output 'a' twice"),
        (b"{'a': 1}", "not JSON"),
        (b"{" * 100_000, "not JSON"),
        (b'{"a": 1', "not JSON"),
        (b"a=\xff", "not UTF-8"),
        (b"x" * 5000, "output line 'xxx"),
    ],
)
def test_malformed_outputs_are_told_with_the_task(tmp_path: Path, content: bytes, says: str) -> None:
    with pytest.raises(BadOutputs, match=says) as wrong:
        outputs_of(content, tmp_path)

    assert "task 't'" in str(wrong.value)
    assert len(str(wrong.value)) < 300


@pytest.mark.parametrize("content", [b"", b"\n \n", b"\xef\xbb\xbf", b"a=1\r\nb=2\r\n", b"\xef\xbb\xbfa=1\nb=2"])
def test_blank_lines_line_ends_and_byte_order_marks_do_not_matter(tmp_path: Path, content: bytes) -> None:
    expected = {"a": 1, "b": 2} if b"a=" in content else {}

    assert expected == outputs_of(content, tmp_path)


# --- what a command prints


PIECES = st.lists(st.sampled_from(["a", "bc", "\n", "é", "x" * 70_000, "\r", "\x00", "\n\n"]), max_size=12)


@given(pieces=PIECES)
@FEW
def test_lines_are_copied_whole_and_in_order_however_they_are_cut(tmp_path: Path, pieces: list[str]) -> None:
    """A program that writes in pieces, each flushed by itself, and both streams into one."""
    script = tmp_path / "write.py"
    script.write_text(
        "import os, json, sys\n"
        f"for number, piece in enumerate(json.loads({json.dumps(json.dumps(pieces))})):\n"
        "    data = piece.encode()\n"
        "    while data:\n"
        "        data = data[os.write(1 + number % 2, data):]\n"
    )
    printed = io.StringIO()

    with redirect_stdout(printed):
        run_command(command([sys.executable, "-I", "-S", str(script)]))

    text = "".join(pieces)
    lines = text.split("\n")
    lines = lines[:-1] if lines[-1] == "" else lines
    assert "".join(f"[t] {line}\n" for line in lines) == printed.getvalue()


def test_bytes_that_are_no_text_are_shown_as_such() -> None:
    printed = io.StringIO()

    with redirect_stdout(printed):
        run_command(command("printf 'a\\377b\\n'"))

    assert "[t] a\ufffdb\n" == printed.getvalue()


# --- how a command ends


@pytest.mark.parametrize("code", [1, 2, 74, 76, 126, 255])
def test_another_code_is_a_failure_with_the_end_of_the_output(code: int) -> None:
    with pytest.raises(CommandFailed) as failed:
        run_command(command(f"seq 1 50; echo last; exit {code}"))

    assert code == failed.value.code
    assert "last" in str(failed.value)
    assert "\n1\n" not in str(failed.value)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_command_that_dies_of_a_signal_has_failed(number: signal.Signals) -> None:
    with pytest.raises(CommandFailed) as failed:
        run_command(command(["/bin/sh", "-c", f"kill -{int(number)} $$"]))

    assert -int(number) == failed.value.code


def test_code_75_asks_to_be_tried_again_with_the_last_line() -> None:
    with pytest.raises(TaskTemporarilyFailed, match="the queue is full"):
        run_command(command("echo before; echo the queue is full; exit 75"))


@pytest.mark.parametrize(
    ("run", "cwd", "says"),
    [
        (["/no/such/program"], HERE, "/no/such/program"),
        ("true", Path("/no/such/folder"), "/no/such/folder"),
        (["/etc/passwd"], HERE, "Permission denied"),
    ],
)
def test_what_cannot_be_started_is_said(run: str | list[str], cwd: Path, says: str) -> None:
    with pytest.raises(BadOutputs, match=says):
        run_command(Command(task="t", run=run, env={}, cwd=cwd))


def test_variables_are_added_to_those_of_the_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TIDEMILL_TEST_A", "theirs")
    monkeypatch.setenv("TIDEMILL_TEST_B", "kept")
    asked = Command(
        task="t",
        run='echo "a=\\"$TIDEMILL_TEST_A\\"" >> $TIDEMILL_OUTPUTS; echo "b=\\"$TIDEMILL_TEST_B\\"" >> $TIDEMILL_OUTPUTS',
        env={"TIDEMILL_TEST_A": "ours"},
        cwd=HERE,
    )

    assert {"a": "ours", "b": "kept"} == run_command(asked)


def test_standard_input_is_empty_not_the_terminals() -> None:
    assert {"read": 0} == run_command(command('echo "read=$(wc -c)" >> $TIDEMILL_OUTPUTS', timeout_s=60))


def test_a_command_that_takes_too_long_is_stopped_with_its_children(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    with pytest.raises(TaskTimedOut):
        run_command(command(f"sleep 600 & echo $! > {pids}; wait", timeout_s=0.3))

    assert not is_alive(int(pids.read_text()))


def test_a_command_that_ignores_the_request_is_killed_after_its_grace(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    began = time.monotonic()

    with pytest.raises(TaskTimedOut):
        run_command(command(f"trap '' TERM; echo $$ > {pids}; while :; do sleep 0.1; done", timeout_s=0.3, grace_s=0.5))

    assert not is_alive(int(pids.read_text()))
    assert time.monotonic() - began < 60


def test_commands_of_many_threads_keep_their_outputs_apart() -> None:
    found: dict[int, Any] = {}

    def run(number: int) -> None:
        found[number] = run_command(command(f'echo "n={number}" >> $TIDEMILL_OUTPUTS'))

    threads = [threading.Thread(target=run, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert {number: {"n": number} for number in range(12)} == found


def is_alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


# --- callables in a process of their own


CALLABLES = """
import os, sys, threading, time
from tidemill_core.errors import TransientError

class Own:
    pass

def give(value): return value
def own(): return Own()
def lock(): return threading.Lock()
def generator(): return (number for number in range(3))
def wrong(): raise ValueError("no such thing")
def busy(): raise TransientError("come again")
def leave(): sys.exit(3)
def die(): os.kill(os.getpid(), 9)
def big(): return {"x": "y" * 3_000_000}
def slow(): time.sleep(600)

class Strange(Exception):
    def __init__(self, one, two): super().__init__(one)

def strange(): return Strange(1, 2)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "called_here.py").write_text(CALLABLES)
    return tmp_path


def call(folder: Path, name: str, timeout_s: float | None = None, **arguments: Any) -> Any:
    return call_in_process("t", f"called_here:{name}", arguments, folder=folder, timeout_s=timeout_s)


def test_what_a_callable_returns_arrives(folder: Path) -> None:
    assert {"a": [1, "x", None]} == call(folder, "give", value={"a": [1, "x", None]})
    assert 3_000_000 == len(call(folder, "big")["x"])


@pytest.mark.parametrize("name", ["lock", "generator", "Strange"])
def test_what_cannot_be_handed_on_is_named_by_its_type(folder: Path, name: str) -> None:
    with pytest.raises(BadOutputs, match=rf"task 't' returned a \S*{name}\S*, which cannot be handed on") as wrong:
        call(folder, name.lower())

    assert "Traceback" not in str(wrong.value)


def test_a_class_that_only_the_child_knows_is_refused(folder: Path) -> None:
    with pytest.raises(BadOutputs, match=r"returned a called_here\.Own, which is not known in the run's process"):
        call(folder, "own")


def test_errors_and_deaths_of_a_callable_are_told_apart(folder: Path) -> None:
    with pytest.raises(CommandFailed, match="no such thing"):
        call(folder, "wrong")
    with pytest.raises(TaskTemporarilyFailed, match="come again"):
        call(folder, "busy")
    with pytest.raises(CommandFailed, match="died without a result") as died:
        call(folder, "die")
    assert -9 == died.value.code
    with pytest.raises(CommandFailed) as left:
        call(folder, "leave")
    assert 3 == left.value.code


def test_a_callable_that_takes_too_long_leaves_no_process(folder: Path) -> None:
    before = children()

    with pytest.raises(TaskTimedOut):
        call(folder, "slow", timeout_s=1.0)

    assert children() <= before


def children() -> set[str]:
    """Process numbers of this process's children, but for the helpers that Python keeps."""
    found = set()
    for task in Path(f"/proc/{os.getpid()}/task").iterdir():
        for pid in (task / "children").read_text().split():
            line = Path(f"/proc/{pid}/cmdline").read_bytes()
            if b"spawn_main" in line:
                found.add(pid)
    return found
