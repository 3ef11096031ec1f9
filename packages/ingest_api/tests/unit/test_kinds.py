"""Values of a wrong type: refused in the words of someone who reads the API's answer."""

import pytest
from tidemill_ingest_api.records.kinds import KINDS


@pytest.mark.parametrize(
    ("kind", "value", "words"),
    [
        ("int64", "abc", "'abc' is not an integer"),
        ("int64", "9" * 5000, f"'{'9' * 60}…' is not an integer"),
        ("int64", 1.8446744073709552e19, "a number beyond 64 bits does not fit 64 bits"),
        ("int32", -1.8446744073709552e19, "a number beyond 64 bits does not fit 32 bits"),
        ("int64", 2**63, "9223372036854775808 does not fit 64 bits"),
        ("float64", "x", "'x' is not a number"),
        ("timestamp", "yesterday", "'yesterday' is not an ISO 8601 timestamp"),
        ("epoch_s", "soon", "'soon' is not a number"),
        ("date", "2026-13-01", "'2026-13-01' is not a date (YYYY-MM-DD)"),
    ],
)
def test_a_wrong_value_is_told_in_plain_words(kind: str, value: object, words: str) -> None:
    with pytest.raises(ValueError, match=r"is not|does not fit") as caught:
        KINDS[kind].convert(value)

    assert words == str(caught.value)


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [("int64", "12", 12), ("int64", 3.0, 3), ("int64", 2**63 - 1, 2**63 - 1), ("float64", "1.5", 1.5)],
)
def test_a_value_that_fits_is_converted(kind: str, value: object, expected: object) -> None:
    assert expected == KINDS[kind].convert(value)
