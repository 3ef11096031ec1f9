"""The supervisor: restarts what dies, stops what is wrong, and ends all on a signal."""

from __future__ import annotations

import sys
import threading

from tidemill_core.lifecycle import StopToken
from tidemill_stream.running import supervisor


def test_a_child_that_dies_is_started_again(tmp_path, monkeypatch):
    monkeypatch.setattr(supervisor, "_FIRST_DELAY_S", 0.01)
    marks = tmp_path / "starts"
    script = (
        f"open({str(marks)!r}, 'a').write('x'); import sys; sys.exit(0 if len(open({str(marks)!r}).read()) > 2 else 9)"
    )

    code = supervisor.supervise({"p": [sys.executable, "-c", script]}, StopToken(), poll_s=0.01)

    assert (code, marks.read_text()) == (0, "xxx")


def test_a_wrong_configuration_is_not_tried_again():
    code = supervisor.supervise({"p": [sys.executable, "-c", "import sys; sys.exit(3)"]}, StopToken(), poll_s=0.01)

    assert code == 3


def test_children_end_when_told(tmp_path):
    stop, ready = StopToken(), tmp_path / "ready"
    script = f"import signal, time; open({str(ready)!r}, 'w'); signal.sigwait([signal.SIGTERM])"
    block = "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]);"
    watcher = threading.Thread(target=lambda: _when(ready.exists, lambda: stop.set("test")))
    watcher.start()

    code = supervisor.supervise({"p": [sys.executable, "-c", block + script]}, stop, poll_s=0.01)

    watcher.join()
    assert code == 0


def _when(condition, action):
    while not condition():
        threading.Event().wait(0.01)
    action()
