"""The plan equals a brute-force model, and stays in order."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tidemill_core.storage import ObjectInfo, pages_of
from tidemill_sync.errors import ListingUnsorted
from tidemill_sync.plan import Entry, plan, plan_pages, taking

_NOW = datetime(2026, 1, 1, tzinfo=UTC)
_KEYS = st.text(alphabet="ab/-.é\uff5e🌊", min_size=1, max_size=4)
_STATES = st.tuples(st.integers(0, 2), st.sampled_from([None, "e1", "e2"]))
_SIDE = st.dictionaries(_KEYS, _STATES, max_size=12)
_NOTES = st.dictionaries(
    _KEYS,
    st.tuples(st.integers(0, 2), st.sampled_from([None, "e1", "e2"]), st.sampled_from([None, "e1", "e2"])),
    max_size=12,
)


def listing(side):
    return [
        ObjectInfo(key=key, size_bytes=size, etag=etag, modified_at=_NOW)
        for key, (size, etag) in sorted(side.items(), key=lambda each: each[0].encode())
    ]


def notes(entries):
    return [
        Entry(key=key, size_bytes=size, source_etag=source, target_etag=target)
        for key, (size, source, target) in sorted(entries.items(), key=lambda each: each[0].encode())
    ]


def expected_kind(key, source, target, entries, prune):
    if key not in source:
        if key in target:
            return "delete" if prune else None
        return "forget"
    if key not in target:
        return "copy"
    (size, etag), (target_size, target_etag) = source[key], target[key]
    note = entries.get(key)
    if note and None not in note and note == (size, etag, target_etag) and target_size == size:
        return "skip"
    if size == target_size and note is None:
        return "compare"
    return "replace"


@given(source=_SIDE, target=_SIDE, entries=_NOTES, prune=st.booleans())
def test_the_plan_equals_a_brute_force_model(source, target, entries, prune):
    expected = {}
    for key in {*source, *target, *entries}:
        kind = expected_kind(key, source, target, entries, prune)
        if kind:
            expected[key] = kind

    actions = list(plan(listing(source), listing(target), notes(entries), prune=prune))

    assert expected == {action.key: action.kind for action in actions}
    assert sorted(expected, key=str.encode) == [action.key for action in actions]


@given(source=_SIDE, target=_SIDE)
def test_carrying_out_a_pruning_plan_makes_both_sides_equal(source, target):
    result = dict(target)
    for action in plan(listing(source), listing(target), prune=True):
        if action.kind == "delete":
            del result[action.key]
        else:
            result[action.key] = source[action.key]

    assert source == result


@given(_SIDE)
def test_a_second_plan_over_noted_copies_has_nothing_to_do(source):
    entries = {key: (size, etag, f"t-{key}") for key, (size, etag) in source.items() if etag}
    target = {key: (size, f"t-{key}") for key, (size, _) in source.items()}

    kinds = {action.key: action.kind for action in plan(listing(source), listing(target), notes(entries), prune=True)}

    assert {key: "skip" if etag else "compare" for key, (_, etag) in source.items()} == kinds


@pytest.mark.parametrize("keys", [["b", "a"], ["a", "a"], ["\U0001f30a", "\uff5e"]])
def test_a_listing_out_of_order_is_an_error(keys):
    unsorted = [ObjectInfo(key=key, size_bytes=1, etag="e", modified_at=_NOW) for key in keys]

    with pytest.raises(ListingUnsorted, match="s3://bucket"):
        list(plan(unsorted, [], names=("s3://bucket", "target")))


def test_the_plan_streams_and_never_reads_ahead_by_more_than_one():
    read = []

    def endless():
        number = 0
        while True:
            read.append(number)
            yield ObjectInfo(key=f"{number:09}", size_bytes=1, etag="e", modified_at=_NOW)
            number += 1

    actions = plan(endless(), [])
    for _ in range(3):
        next(actions)

    assert len(read) <= 4


def counted(source, target, entries, page_keys, **options):
    """Plan by pages, in which unchanged rows are only counted; gives the other actions and the count of all skipped."""
    passed = []
    pages = [pages_of(each, page_keys=page_keys) for each in (source, target)]
    actions = list(plan_pages(*pages, entries, unchanged=passed.append, **options))
    skipped = sum(passed) + sum(action.kind == "skip" for action in actions)
    return [action for action in actions if action.kind != "skip"], skipped


@given(source=_SIDE, target=_SIDE, entries=_NOTES, prune=st.booleans(), page_keys=st.integers(1, 5))
def test_a_plan_in_bulk_equals_the_plan_key_by_key(source, target, entries, prune, page_keys):
    singly = list(plan(listing(source), listing(target), notes(entries), prune=prune))

    actions, skipped = counted(listing(source), listing(target), notes(entries), page_keys, prune=prune)

    assert actions == [action for action in singly if action.kind != "skip"]
    assert skipped == sum(action.kind == "skip" for action in singly)


@settings(max_examples=40)
@given(
    changed=st.dictionaries(st.integers(0, 2_999), st.sampled_from(["source", "target", "note", "size", "gone"])),
    page_keys=st.sampled_from([1, 7, 1_000, 5_000]),
)
def test_what_differs_among_thousands_of_equal_keys_is_found(changed, page_keys):
    source = {f"{number:05}": (1, "e1") for number in range(3_000)}
    target, entries = dict(source), dict.fromkeys(source, (1, "e1", "e1"))
    for number, what in changed.items():
        key = f"{number:05}"
        if what == "source":
            source[key] = (1, "e2")
        elif what == "target":
            target[key] = (1, "e2")
        elif what == "size":
            source[key] = (2, "e1")
        elif what == "note":
            del entries[key]
        else:
            del target[key]

    actions, skipped = counted(listing(source), listing(target), notes(entries), page_keys)

    assert [action.key for action in actions] == [f"{number:05}" for number in sorted(changed)]
    assert skipped == 3_000 - len(changed)


def test_keys_without_etags_are_never_passed_over():
    source = {f"{number:05}": (1, None) for number in range(100)}
    entries = dict.fromkeys(source, (1, None, None))

    actions, skipped = counted(listing(source), listing(source), notes(entries), 1_000)

    assert (len(actions), skipped) == (100, 0)


@pytest.mark.parametrize("page_keys", [1, 2, 1_000])
def test_a_page_out_of_order_is_an_error_wherever_it_breaks(page_keys):
    keys = ["a", "b", "d", "c", "e"]
    unsorted = [ObjectInfo(key=key, size_bytes=1, etag="e1", modified_at=_NOW) for key in keys]

    with pytest.raises(ListingUnsorted, match="'c' after 'd'"):
        counted(unsorted, [], [], page_keys)


def test_a_filter_takes_keys_out_of_pages():
    side = dict.fromkeys("abcd", (1, "e1"))
    pages = pages_of(listing(side), page_keys=3)

    found = [page.info(index).key for page in taking(pages, lambda key: key in "bd") for index in range(len(page.keys))]

    assert found == ["b", "d"]
