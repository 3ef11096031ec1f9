"""Which format reads a file is asked of the registry, where a stranger's formats are too."""

import pytest
from tidemill_core.errors import ConfigError
from tidemill_core.plugins import Registry
from tidemill_loader import formats
from tidemill_loader.formats import format_for


class Stranger:
    suffixes = (".geo.json", ".tab")


class Rival:
    suffixes = (".tab",)


class Packed:
    suffixes = (".log.gz",)


class Nameless:
    """A format written before formats named their suffixes."""


@pytest.fixture
def registry(monkeypatch):
    """The installed formats, in a registry that the test may add to."""
    fresh = Registry("tidemill.loader.formats", "file format")
    monkeypatch.setattr(formats, "FORMATS", fresh)
    return fresh


def test_a_strangers_suffix_is_found_once_it_is_registered(registry):
    with pytest.raises(ConfigError, match="does not tell the format"):
        format_for("auto", "x/a.tab")
    registry.register("stranger", Stranger)

    found = format_for("auto", "x/a.tab.zst")

    assert found == "stranger"


def test_the_longest_suffix_decides(registry):
    registry.register("stranger", Stranger)

    found = [format_for("auto", path) for path in ("a.geo.json", "a.geo.json.gz", "a.json")]

    assert found == ["stranger", "stranger", "json"]


def test_a_suffix_that_two_formats_claim_is_refused_and_both_are_named(registry):
    registry.register("stranger", Stranger)
    registry.register("rival", Rival)

    with pytest.raises(
        ConfigError, match=r"x/a\.tab: \.tab is claimed by the formats rival and stranger; set `format`"
    ):
        format_for("auto", "x/a.tab")

    assert format_for("rival", "x/a.tab") == "rival"


def test_a_format_may_claim_a_suffix_that_ends_as_a_compression_does(registry):
    registry.register("packed", Packed)

    found = [format_for("auto", path) for path in ("a.log.gz", "a.csv.gz")]

    assert found == ["packed", "csv"]


def test_a_format_without_suffixes_is_used_by_its_name_alone(registry):
    registry.register("nameless", Nameless)

    assert format_for("auto", "a.csv") == "csv"
    assert format_for("nameless", "a.csv") == "nameless"


def test_a_format_that_cannot_be_imported_stops_no_other_and_says_why(registry, tmp_path, monkeypatch):
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tidemill.loader.formats]\nbroken = no_such_module_of_ours:Format\n")
    monkeypatch.syspath_prepend(str(tmp_path))

    assert format_for("auto", "a.parquet") == "parquet"
    with pytest.raises(ConfigError, match=r"a\.brk: .*broken.* cannot be loaded"):
        format_for("auto", "a.brk")
