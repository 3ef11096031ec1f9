"""The page cache keeps its bound."""

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st
from tidemill_ingest_api.api.cache import PageCache


@dataclass
class Value:
    size_bytes: int


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 3000)), max_size=60))
def test_the_bound_holds_whatever_is_put(puts):
    cache = PageCache(4000)

    for key, size in puts:
        cache.put(key, Value(size))
        assert cache.bytes <= 4000

    assert cache.bytes == sum(cache.get(key).size_bytes + 200 for key in range(10) if cache.get(key))


def test_the_least_used_value_is_forgotten_first():
    cache = PageCache(4 * 900)
    for key in "abc":
        cache.put(key, Value(700))
    cache.get("a")

    cache.put("d", Value(700))
    cache.put("e", Value(700))

    assert ["a", "c", "d", "e"] == [key for key in "abcde" if cache.get(key)]


def test_nothing_is_kept_without_room():
    cache = PageCache(0)

    cache.put("a", Value(1))

    assert 0 == len(cache)
