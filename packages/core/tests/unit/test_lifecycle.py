"""Signals ask for a stop, and what was opened is closed in reverse order."""

import signal
import subprocess
import sys
import threading

import pytest
from tidemill_core.errors import ExitCode, exit_code
from tidemill_core.lifecycle import Shutdown, Stopped, StopToken, stop_on_signals


def test_a_token_stays_set_with_its_first_reason() -> None:
    token = StopToken()
    assert (token.is_set, token.reason, token.wait(0)) == (False, None, False)
    token.raise_if_set()

    token.set("SIGTERM")
    token.set("later")

    assert (token.is_set, token.reason, token.wait(), token.wait(0)) == (True, "SIGTERM", True, True)
    with pytest.raises(Stopped, match="SIGTERM"):
        token.raise_if_set()


def test_every_waiting_thread_is_woken() -> None:
    token = StopToken()
    woken: list[bool] = []
    threads = [threading.Thread(target=lambda: woken.append(token.wait(60))) for _ in range(20)]
    for thread in threads:
        thread.start()

    token.set()
    for thread in threads:
        thread.join(30)

    assert woken == [True] * 20


def test_threads_may_set_a_token_at_once() -> None:
    for _ in range(50):
        token, barrier = StopToken(), threading.Barrier(4)

        def race(token: StopToken = token, barrier: threading.Barrier = barrier) -> None:
            barrier.wait(30)
            token.set()
            assert token.wait(30)

        threads = [threading.Thread(target=race) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)

        assert token.wait(0)
        assert not any(thread.is_alive() for thread in threads)


def test_a_stop_is_not_an_error_of_ours_and_ends_with_130() -> None:
    from tidemill_core.errors import TidemillError

    assert not issubclass(Stopped, TidemillError)
    assert exit_code(Stopped("x")) == ExitCode.INTERRUPTED


SERVICE = """
import sys
from tidemill_core.lifecycle import Shutdown, stop_on_signals
with stop_on_signals() as stop, Shutdown() as shutdown:
    shutdown.push("sink", lambda: print("closed sink", flush=True))
    shutdown.push("consumer", lambda: print("closed consumer", flush=True))
    print("ready", flush=True)
    try:
        while not stop.wait(120):
            raise SystemExit("the wait ended without a signal")
        print("stopping:", stop.reason, flush=True)
        if "stubborn" in sys.argv:
            import threading
            threading.Event().wait(120)
    except KeyboardInterrupt:
        print("at once", flush=True)
print("done", flush=True)
"""


def service(*arguments: str) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", SERVICE, *arguments], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_stops_a_process_cleanly(number: signal.Signals) -> None:
    with service() as process:
        process.send_signal(number)
        told, _ = process.communicate(timeout=60)

    assert told.splitlines() == [f"stopping: {number.name}", "closed consumer", "closed sink", "done"]
    assert process.returncode == 0


def test_the_second_signal_interrupts_at_once_and_still_closes() -> None:
    with service("stubborn") as process:
        process.send_signal(signal.SIGTERM)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping: SIGTERM\n"

        process.send_signal(signal.SIGTERM)
        told, _ = process.communicate(timeout=60)

    assert told.splitlines() == ["at once", "closed consumer", "closed sink", "done"]


def test_former_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)

    with stop_on_signals():
        assert signal.getsignal(signal.SIGTERM) != before[0]

    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_another_thread_gets_a_token_without_handlers() -> None:
    found: list[bool] = []

    def work() -> None:
        with stop_on_signals() as token:
            token.set()
            found.append(token.is_set)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(30)

    assert found == [True]


def test_closing_is_in_reverse_order_and_happens_once() -> None:
    order: list[str] = []
    shutdown = Shutdown()
    for name in ("a", "b", "c"):
        shutdown.push(name, lambda name=name: order.append(name))

    assert shutdown.run() == ()
    assert shutdown.run() == ()
    assert order == ["c", "b", "a"]


def test_one_that_fails_or_hangs_is_told_and_the_others_are_closed() -> None:
    order: list[str] = []
    never = threading.Event()

    def fail() -> None:
        raise OSError("disk")

    with Shutdown() as shutdown:
        shutdown.push("first", lambda: order.append("first"))
        shutdown.push("failing", fail)
        shutdown.push("hanging", lambda: never.wait(60), deadline_s=0.05)
        faults = shutdown.run()
    never.set()

    assert order == ["first"]
    assert [(fault.name, type(fault.error)) for fault in faults] == [("hanging", type(None)), ("failing", OSError)]


def test_without_a_deadline_closing_happens_in_the_calling_thread() -> None:
    found: list[threading.Thread] = []

    shutdown = Shutdown()
    shutdown.push("connection", lambda: found.append(threading.current_thread()), deadline_s=None)
    shutdown.run()

    assert found == [threading.current_thread()]
