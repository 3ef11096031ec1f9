"""The group of an asset is the layer of its data."""

import dagster as dg
import pytest
from tidemill_core.defs import layer


@pytest.mark.parametrize(
    ("key", "expected"),
    [(["raw", "weather"], "raw"), (["a-b.c", "x", "y"], "a_b_c"), (["alone"], None), (["größe", "x"], "gr__e")],
)
def test_layer_is_the_first_part_of_a_key_as_dagster_allows_a_group(key: list[str], expected: str | None) -> None:
    found = layer(dg.AssetKey(key))

    assert found == expected
    dg.AssetSpec(dg.AssetKey("any"), group_name=found)
