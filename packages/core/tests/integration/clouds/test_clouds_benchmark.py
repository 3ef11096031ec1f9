"""The benchmark of the stores runs at a tiny size, so that it never rots."""

from pathlib import Path

import pytest


def test_the_store_benchmark_runs_at_a_tiny_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], versitygw: object
) -> None:
    harness = pytest.importorskip("benchmarks.harness", reason="the package is tested without its repository")
    from benchmarks.core import stores

    monkeypatch.setattr(harness, "RESULTS", tmp_path)
    monkeypatch.setattr(stores, "peer_python", lambda *_: None)

    stores.main(1, wanted=("core_store_put_4k", "core_store_get_4k"), share=0.01)

    assert capsys.readouterr().out.count("cpu_us_per_object ") >= 2
    assert sorted(file.name for file in tmp_path.glob("*.json")) == [
        "core_store_get_4k_tiny.json",
        "core_store_put_4k_tiny.json",
    ]
