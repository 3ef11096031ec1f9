"""Patterns choose keys as rclone's do."""

import pytest
from tidemill_sync.config import SyncConfig
from tidemill_sync.filters import compile_filter, pattern_regex


@pytest.mark.parametrize(
    ("pattern", "key", "matches"),
    [
        ("*.csv", "a.csv", True),
        ("*.csv", "deep/er/a.csv", True),
        ("*.csv", "a.csv.gz", False),
        ("/*.csv", "a.csv", True),
        ("/*.csv", "deep/a.csv", False),
        ("a*c", "a/c", False),
        ("a**c", "a/b/c", True),
        ("?.txt", "a.txt", True),
        ("?.txt", "ab.txt", False),
        ("tmp/", "tmp/x/y", True),
        ("tmp/", "my/tmp/x", True),
        ("/tmp/**", "my/tmp/x", False),
        ("[a-c].txt", "b.txt", True),
        ("[!a-c].txt", "b.txt", False),
        ("*.{csv,json}", "x.json", True),
        ("*.{csv,json}", "x.txt", False),
        (r"\*.csv", "*.csv", True),
        (r"\*.csv", "a.csv", False),
        ("a+b(c).txt", "a+b(c).txt", True),
        ("date=2013-*/**", "raw/date=2013-01/p.parquet", True),
        ("b", "ab", False),
    ],
)
def test_a_pattern_matches_as_documented(pattern, key, matches):
    assert matches == bool(pattern_regex(pattern).search(key))


@pytest.mark.parametrize("pattern", ["", "/", "[abc", "{a,b"])
def test_a_broken_pattern_is_refused_with_its_text(pattern):
    with pytest.raises(ValueError, match="pattern"):
        pattern_regex(pattern)


def test_the_first_rule_that_matches_decides():
    takes = compile_filter(["+ keep/tmp/**", "- tmp/**"], [], [])

    assert [takes(key) for key in ("keep/tmp/x", "a/tmp/x", "other")] == [True, False, True]


def test_with_includes_everything_else_is_out():
    takes = compile_filter([], ["*.parquet"], ["bad*"])

    assert [takes(key) for key in ("a/x.parquet", "bad.parquet", "x.csv")] == [True, False, False]


def test_a_config_with_a_broken_rule_is_refused():
    with pytest.raises(ValueError, match="must begin with"):
        SyncConfig(filters=("tmp/**",))
