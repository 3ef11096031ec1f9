"""The benchmarks of sync run at a tiny size, so that they never rot."""

import json

import pytest


def test_the_benchmarks_run_at_a_tiny_size(tmp_path, monkeypatch, versitygw):
    harness = pytest.importorskip("benchmarks.harness", reason="the package is tested without its repository")
    from benchmarks.sync import _server, large, nothing, small

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(_server, "peer_python", lambda *_: None)

    small.main(count=20, rounds=1)
    large.main(count=1, rounds=1)
    nothing.main(count=1_500, large=2_500, rounds=1)

    requests = {
        path.stem: [case["facts"]["requests"]["median"] for case in json.loads(path.read_text())["cases"].values()]
        for path in tmp_path.glob("*.json")
    }
    # Two listings, then a GET and a PUT an object; two and three pages a side where nothing is copied.
    assert requests["sync_small_tiny"] == [42]
    assert requests["sync_nothing_tiny"] == [4, 6]
    assert set(requests) == {"sync_small_tiny", "sync_large_tiny", "sync_nothing_tiny"}
