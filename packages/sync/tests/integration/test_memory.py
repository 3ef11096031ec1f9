"""How much memory a run takes, whatever the number and size of objects."""

import json
import os
import subprocess
import sys

import pytest

_FILES = 32
_COMMAND = """
import atexit, pathlib
from tidemill_core.cli import main
# Not ru_maxrss: that of a new process begins with the memory of the one that started it.
atexit.register(lambda: print(pathlib.Path("/proc/self/status").read_text()))
main()
"""


@pytest.fixture
def peak_mib(tmp_path):
    """Run the command on 32 files of 7 MiB, 32 at once, and give its peak memory in MiB.

    The bandwidth limit is what lets objects pile up in memory.
    """
    source = tmp_path / "source"
    source.mkdir()
    for number in range(_FILES):
        (source / f"{number:02}").write_bytes(os.urandom(1 << 20) * 7)

    def run(**options):
        file = tmp_path / "sync.json"
        place = {"source": source.as_uri(), "target": (tmp_path / "target").as_uri()}
        manifest = f"sqlite:///{tmp_path}/sync.db"
        file.write_text(json.dumps({**place, "manifest": manifest, "workers": 32, "bytes_per_s": 60 << 20, **options}))
        done = subprocess.run(
            [sys.executable, "-c", _COMMAND, "sync", "run", "--config", str(file)], stdout=subprocess.PIPE, text=True
        )
        assert done.returncode == 0
        assert len(list((tmp_path / "target").glob("*"))) >= _FILES
        return int(done.stdout.rpartition("VmHWM:")[2].split()[0]) / 1024

    return run


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux counts")
def test_a_run_stays_within_its_budget(peak_mib):
    assert peak_mib() < 140


@pytest.mark.skipif(sys.platform != "linux", reason="counts as Linux counts")
def test_without_a_budget_it_would_not(peak_mib):
    """The negative control of the test above."""
    assert peak_mib(memory_bytes=1 << 30) > 180
