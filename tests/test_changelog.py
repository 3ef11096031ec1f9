"""The changelog's tool: fragments are well named, required where sources change, and assembled by kind."""

import datetime as dt

import pytest

from tests import changelog


def test_the_fragments_of_this_repository_are_in_form():
    assert [] == changelog.faults(changelog.ROOT / "changelog.d")
    assert changelog.MARK in (changelog.ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("name", ["sync.md", "sync.mended.md", "Sync.fixed.md", "sync..fixed.md"])
def test_a_fragment_of_another_name_is_refused(name, tmp_path):
    (tmp_path / name).write_text("Text.")

    assert [f"{name}: name it <topic>.<added|changed|fixed|removed>.md"] == changelog.faults(tmp_path)


def test_an_empty_fragment_is_refused_and_the_readme_is_none(tmp_path):
    (tmp_path / "README.md").write_text("")
    (tmp_path / "sync.fixed.md").write_text(" \n")

    assert ["sync.fixed.md says nothing"] == changelog.faults(tmp_path)


@pytest.mark.parametrize(
    ("changed", "is_missing"),
    [
        (["packages/sync/src/tidemill_sync/plan.py"], True),
        (["deploy/src/tidemill_deploy/demo.py", "docs/adr/0001.md"], True),
        (["packages/sync/src/tidemill_sync/plan.py", "changelog.d/sync.fixed.md"], False),
        (["packages/sync/tests/unit/test_plan.py", "README.md", ".ci/run"], False),
        ([], False),
    ],
)
def test_a_change_of_sources_needs_a_fragment(changed, is_missing):
    assert is_missing is (changelog.missing(changed) is not None)


def test_a_version_lists_its_fragments_by_kind_each_on_one_line(tmp_path):
    (tmp_path / "b.fixed.md").write_text("Two\nlines.\n")
    (tmp_path / "a.fixed.md").write_text("One.\n")
    (tmp_path / "c.added.md").write_text("New.\n")

    text = changelog.assembled(tmp_path, "0.2.0", dt.date(2026, 12, 1))

    assert "## 0.2.0 (2026-12-01)\n\n### Added\n\n- New.\n\n### Fixed\n\n- One.\n- Two lines.\n" == text


def test_assembling_empties_the_folder_into_the_changelog(tmp_path, monkeypatch):
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d/a.fixed.md").write_text("One.\n")
    (tmp_path / "CHANGELOG.md").write_text(f"# Changes\n\n{changelog.MARK}\n\n## 0.1.0\n")
    monkeypatch.setattr(changelog, "ROOT", tmp_path)

    assert 0 == changelog.assemble("0.2.0")

    text = (tmp_path / "CHANGELOG.md").read_text()
    assert [] == changelog.fragments(tmp_path / "changelog.d")
    assert text.index(changelog.MARK) < text.index("## 0.2.0") < text.index("- One.") < text.index("## 0.1.0")
