"""Source objects can be left out by their age, and are then left alone on both sides."""

import os
import time

import pytest
from tidemill_sync.engine import plan_actions, sync, sync_keys

HOUR_S = 3_600


@pytest.fixture
def aged(folder, tmp_path):
    """A folder with an object of this moment and one of two hours ago."""
    for key in ("new", "old"):
        folder.put(key, key.encode())
    then = time.time() - 2 * HOUR_S
    os.utime(tmp_path / "folder" / "old", (then, then))
    return folder


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, ["new", "old"]),
        ({"min_age_s": HOUR_S}, ["old"]),
        ({"max_age_s": HOUR_S}, ["new"]),
        ({"min_age_s": HOUR_S, "max_age_s": 3 * HOUR_S}, ["old"]),
        ({"min_age_s": 3 * HOUR_S}, []),
    ],
)
def test_objects_take_part_by_their_age(aged, memory, config, limits, expected):
    planned = [action.key for action in plan_actions(config(**limits), source=aged, target=memory)]

    sync(config(**limits), source=aged, target=memory)

    assert planned == expected
    assert [each.key for each in memory.list()] == expected


def test_what_is_left_out_is_neither_replaced_nor_deleted(aged, memory, config):
    for key in ("new", "gone"):
        memory.put(key, b"before")

    limits = {"min_age_s": HOUR_S, "prune": True, "max_delete_percent": 100}
    sync(config(**limits), source=aged, target=memory)

    assert {each.key: memory.get(each.key) for each in memory.list()} == {"new": b"before", "old": b"old"}


def test_a_single_key_is_left_out_by_its_age_too(aged, memory, config):
    sync_keys(config(min_age_s=HOUR_S), ["new", "old"], source=aged, target=memory)

    assert [each.key for each in memory.list()] == ["old"]


def test_once_unchanged_an_object_that_has_aged_out_is_not_counted(aged, memory, config):
    sync(config(), source=aged, target=memory)

    result = sync(config(max_age_s=HOUR_S), source=aged, target=memory)

    assert (result.skipped, result.changed) == (1, 0)
