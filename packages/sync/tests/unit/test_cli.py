"""The command line: results on stdout, exit codes by the shell's rules."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from tidemill_core.cli import main
from tidemill_core.storage import open_store


@pytest.fixture
def cli(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TIDEMILL_HOME", str(tmp_path / "home"))
    for name in ("TIDEMILL_POSTGRES_URL", "TIDEMILL_LAKE_URL", "TIDEMILL_MIRROR_URL"):
        monkeypatch.delenv(name, raising=False)

    def run(*args):
        with pytest.raises(SystemExit) as ended:
            main(["sync", *args])
        out, err = capfd.readouterr()
        return ended.value.code, out, err

    return run


@pytest.fixture
def data(tmp_path):
    store = open_store((tmp_path / "data").as_uri())
    store.put("a", b"1")
    store.put("b/c", b"22")
    return store


def test_run_mirrors_and_says_what_it_did(cli, data):
    code, out, _ = cli("run", "data", "copy")

    assert code == 0
    assert out.startswith("2 copied, 0 replaced, 0 found equal, 0 unchanged, 0 deleted; 3 bytes")


@pytest.mark.parametrize("verb", ["run", "plan", "verify"])
def test_a_local_source_that_is_not_there_is_an_error_not_nothing_to_do(cli, data, tmp_path, verb):
    """A misspelt path, or a disk that is not mounted."""
    cli("run", "data", "copy")

    code, out, err = cli(verb, "dat", "copy")

    assert (3, "") == (code, out)
    assert f"the source folder {tmp_path / 'dat'} does not exist" in err
    assert ["a", "b/c"] == [info.key for info in open_store((tmp_path / "copy").as_uri()).list()]


def test_json_is_one_document_on_stdout(cli, data):
    _, out, _ = cli("run", "data", "copy", "--json")

    assert json.loads(out)["copied"] == 2


def test_a_plan_and_a_dry_run_print_actions_and_write_nothing(cli, data, tmp_path):
    code, planned, err = cli("plan", "data", "copy")
    _, dry, _ = cli("run", "data", "copy", "--dry-run", "--json")

    assert (code, planned) == (0, "copy\ta\t1\tnot in the target\ncopy\tb/c\t2\tnot in the target\n")
    assert "plan: 2 copy" in err
    assert [json.loads(line)["key"] for line in dry.splitlines()] == ["a", "b/c"]
    assert not (tmp_path / "copy").exists()


def test_a_plan_is_kept_and_applied(cli, data, tmp_path):
    kept, told, _ = cli("plan", "data", "copy", "--out", "plan.parquet")
    applied, out, _ = cli("apply", "plan.parquet", "--json", "--change-log", "log")

    assert (kept, applied) == (0, 0)
    assert told.startswith("plan.parquet: 2 to copy, 0 to replace")
    assert json.loads(out)["copied"] == 2
    assert len((tmp_path / "log").read_text().splitlines()) == 2


def test_a_plan_is_refused_where_things_have_changed_or_elsewhere(cli, data, tmp_path, monkeypatch):
    cli("plan", "data", "copy", "--out", "plan.parquet")
    data.put("a", b"changed")
    outdated, _, told = cli("apply", "plan.parquet")
    (tmp_path / "other" / "data").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "other")
    elsewhere, _, where = cli("apply", "../plan.parquet")
    missing, _, nothing = cli("apply", "plan.parquet")

    assert (outdated, elsewhere, missing) == (1, 3, 3)
    assert "has changed since the plan" in told
    assert "was made for" in where
    assert "plan.parquet cannot be read: No such file" in nothing
    assert "Traceback" not in told + where + nothing


def test_verify_exits_1_when_something_is_missing(cli, data):
    missing, out, _ = cli("verify", "data", "copy")
    cli("run", "data", "copy")
    same, *_ = cli("verify", "data", "copy", "--content")

    assert (missing, same) == (1, 0)
    assert "missing\ta" in out


def test_lake_is_mirrored_to_mirror_without_arguments(cli, tmp_path):
    open_store((tmp_path / "home" / "lake").as_uri()).put("x", b"1")

    code, *_ = cli("run")

    assert code == 0
    assert open_store((tmp_path / "home" / "mirror").as_uri()).get("x") == b"1"


def test_options_stand_over_the_config_file(cli, data, tmp_path):
    (tmp_path / "s.yaml").write_text("source: data\ntarget: elsewhere\nexclude: ['b/**']\n")

    cli("run", "data", "copy", "--config", "s.yaml")

    assert [each.key for each in open_store((tmp_path / "copy").as_uri()).list()] == ["a"]
    assert not (tmp_path / "elsewhere").exists()


def test_status_lists_the_latest_runs(cli, data):
    cli("run", "data", "copy")

    code, out, _ = cli("status")
    _, as_json, _ = cli("status", "--json")

    assert code == 0
    assert "done" in out
    assert json.loads(as_json)[0]["result"]["copied"] == 2


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["run", "data"], 2),
        (["run", "data", "copy", "--workers", "0"], 3),
        (["run", "data", "copy", "--filter", "tmp/**"], 3),
        (["run", "data", "s4://bucket"], 3),
        (["run", "data", "copy", "--config", "missing.yaml"], 3),
        (["run", "empty", "data", "--prune"], 1),
        (["run", "data", "data/inside"], 1),
    ],
)
def test_what_is_wrong_sets_the_exit_code(cli, data, tmp_path, args, code):
    (tmp_path / "empty").mkdir()

    found, _, err = cli(*args)

    assert found == code
    assert err


def test_a_terminated_run_ends_after_the_objects_in_flight_and_the_next_goes_on(cli, data, tmp_path):
    for number in range(60):
        data.put(f"{number:02}", os.urandom(20_000))
    command = [sys.executable, "-c", "from tidemill_core.cli import main; main()", "sync", "run", "data", "copy"]
    process = subprocess.Popen([*command, "--bytes-per-s", "400000", "--workers", "2"], stderr=subprocess.DEVNULL)
    copy = open_store((tmp_path / "copy").as_uri())
    while len(list(copy.list())) < 5:
        time.sleep(0.02)

    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=60)
    done = len(list(copy.list()))
    _, out, _ = cli("run", "data", "copy", "--json")

    assert code == 130
    assert 5 <= done < 62
    assert (json.loads(out)["skipped"], json.loads(out)["copied"]) == (done, 62 - done)


def test_validate_opens_both_places_and_writes_nothing(cli, data, tmp_path):
    code, out, _ = cli("validate", "data", "copy")
    overlapping, _, why = cli("validate", "data", "data/inside")

    assert code == 0
    assert out.strip() == f"{(tmp_path / 'data').as_uri()} -> {(tmp_path / 'copy').as_uri()}: ok"
    assert not (tmp_path / "copy").exists()
    assert overlapping == 1
    assert "data/inside" in why
