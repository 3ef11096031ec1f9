"""Errors say what to do, and the command turns them into exit codes."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tidemill_core import errors
from tidemill_core.config import ConfigFaults
from tidemill_core.dag.errors import (
    AnotherRunGoesOn,
    CommandFailed,
    RunSkipped,
    RunTimedOut,
    TaskTemporarilyFailed,
    TaskTimedOut,
)
from tidemill_core.errors import TidemillError

TIDEMILL = str(Path(sys.executable).with_name("tidemill"))

GROUP = """
import click
from tidemill_core import errors
from tidemill_core.cli import GROUPS, main
from tidemill_core.lifecycle import Stopped

class Throttled(errors.StorageError, errors.TransientError): ...

@click.group()
def probe(): ...

@probe.command()
@click.argument("how")
def end(how):
    raise {
        "failed": errors.PermanentError("the work failed"),
        "unknown": errors.StorageError("the store failed"),
        "record": errors.RecordError("a bad record"),
        "config": errors.ConfigError("the file is wrong"),
        "temporary": Throttled("try later"),
        "stopped": Stopped("SIGTERM"),
        "interrupt": KeyboardInterrupt(),
        "abort": click.Abort(),
        "usage": click.UsageError("no such thing"),
        "secret": errors.PermanentError("cannot reach postgresql://me:hush@db/x"),
        "bug": ZeroDivisionError("a bug"),
    }[how]

@probe.command()
def faults():
    from tidemill_core.config import ConfigFault, ConfigFaults, Place
    second, first = ConfigFault(Place("a.yaml", 3, 4), "y", "wrong too"), ConfigFault(Place("a.yaml", 1, 2), "x", "wrong")
    raise ConfigFaults([second, first])

@probe.command()
def done():
    click.echo("result")

GROUPS.register("probe", probe)
main()
"""


def probe(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", GROUP, "probe", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("how", "code", "message"),
    [
        ("failed", 1, "error: the work failed\n"),
        ("unknown", 1, "error: the store failed\n"),
        ("record", 1, "error: a bad record\n"),
        ("config", 3, "error: the file is wrong\n"),
        ("temporary", 75, "error: try later\n"),
        ("stopped", 130, "interrupted\n"),
        ("interrupt", 130, "interrupted\n"),
        ("abort", 130, "interrupted\n"),
        ("secret", 1, "error: cannot reach postgresql://me:***@db/x\n"),
    ],
)
def test_the_command_ends_with_the_code_of_its_error_and_one_line_on_stderr(how: str, code: int, message: str) -> None:
    done = probe("end", how)

    assert (done.returncode, done.stdout, done.stderr.lstrip("\n")) == (code, "", message)


def test_every_fault_of_a_file_is_a_line_on_stderr() -> None:
    done = probe("faults")

    assert done.returncode == 3
    assert done.stderr == "error: a.yaml:1:2: x: wrong\nerror: a.yaml:3:4: y: wrong too\n"


def test_a_wrong_use_ends_with_2_and_shows_how() -> None:
    done = probe("end", "usage")

    assert done.returncode == 2
    assert "no such thing" in done.stderr


def test_a_bug_keeps_its_traceback() -> None:
    done = probe("end", "bug")

    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "ZeroDivisionError: a bug" in done.stderr


def test_results_go_to_stdout_and_end_with_0() -> None:
    done = probe("done")

    assert (done.returncode, done.stdout, done.stderr) == (0, "result\n", "")


def test_an_unknown_command_ends_with_2() -> None:
    done = subprocess.run([TIDEMILL, "no-such-group"], capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 2
    assert "No such command 'no-such-group'" in done.stderr


def test_help_and_version_end_with_0_without_heavy_imports() -> None:
    program = (
        "import sys, tidemill_core.cli as c\n"
        "try: c.main(['--version'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'dagster', 'polars', 'pyarrow', 'grpc', 'confluent_kafka', 'structlog', 'psycopg'} & set(sys.modules)\n"
        "print(sorted(heavy))"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)

    assert done.stdout.splitlines()[-1] == "[]"
    assert done.stdout.startswith("tidemill, version ")


def test_sigint_ends_the_command_with_130() -> None:
    program = GROUP.replace('click.echo("result")', 'click.echo("ready"); import time; time.sleep(60)')
    command = [sys.executable, "-u", "-c", program, "probe", "done"]

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        os.kill(process.pid, signal.SIGINT)
        _, told = process.communicate(timeout=60)

    assert process.returncode == 130
    assert told.strip() == "interrupted"


def test_every_error_of_the_kernel_is_drawn_in_its_tree() -> None:
    for error in vars(errors).values():
        if isinstance(error, type) and issubclass(error, errors.TidemillError):
            assert error.__name__ in (errors.__doc__ or ""), error


def test_facts_are_attributes_and_messages_name_them() -> None:
    missing = errors.ObjectNotFound("s3://b/p", "k")
    conflict = errors.CheckpointConflict("load", "a", 3, 4)

    assert (missing.url, missing.key) == ("s3://b/p", "k")
    assert str(missing) == "s3://b/p has no object 'k'"
    assert (conflict.expected, conflict.found) == (3, 4)
    assert "another worker took over" in str(conflict)
    assert isinstance(conflict, errors.PermanentError)


def test_configuration_faults_end_with_3_and_are_told_in_file_order() -> None:
    from tidemill_core.config import ConfigFault, Place

    later = ConfigFault(Place("a.yaml", 10, 1), "x", "wrong")
    sooner = ConfigFault(Place("a.yaml", 9, 1), "y", "wrong")

    error = ConfigFaults([later, sooner])

    assert errors.exit_code(error) == errors.ExitCode.CONFIG
    assert str(error) == "a.yaml:9:1: y: wrong\na.yaml:10:1: x: wrong"


@pytest.mark.parametrize(
    "error",
    [
        CommandFailed("t", 4, "tail"),
        TaskTimedOut("t", 2.0),
        TaskTemporarilyFailed("t", "busy", 3.0),
        RunTimedOut("d", 1.5),
        AnotherRunGoesOn("d", "run x"),
        RunSkipped("d", "run x goes on"),
    ],
)
def test_error_made_of_facts_crosses_to_another_process_whole(error: TidemillError) -> None:
    found = pickle.loads(pickle.dumps(error))

    assert (type(error), str(error), vars(error)) == (type(found), str(found), vars(found))
