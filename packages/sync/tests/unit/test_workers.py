"""What the threads of a run do with items, errors and an early end."""

import threading

import pytest
from tidemill_sync.workers import Workers


def drained(workers):
    found = []
    while not workers.is_idle:
        found += workers.take(waiting=True)
    return found


def test_every_item_comes_back_with_its_result():
    workers = Workers(lambda number: number * 2, threads=4, most=1_000)
    for number in range(100):
        workers.give(number)

    found = drained(workers)
    ended = list(workers.end())

    assert sorted((each.item, each.result) for each in found) == [(number, number * 2) for number in range(100)]
    assert ended == []


def test_an_error_comes_back_with_its_item():
    workers = Workers(lambda number: 1 // number, threads=2, most=10)
    workers.give(0)

    (done,) = drained(workers)
    list(workers.end())

    assert done.item == 0
    assert isinstance(done.error, ZeroDivisionError)


@pytest.mark.parametrize("threads", [1, 3])
def test_no_more_items_run_at_once_than_there_are_threads(threads):
    together, most, lock = [0], [0], threading.Lock()
    barrier = threading.Barrier(threads)

    def work(_):
        with lock:
            together[0] += 1
            most[0] = max(most[0], together[0])
        barrier.wait(10)
        with lock:
            together[0] -= 1

    workers = Workers(work, threads=threads, most=100)
    for number in range(threads * 5):
        workers.give(number)

    found = [*drained(workers), *workers.end()]

    assert [each.error for each in found if each.error] == []
    assert most[0] == threads


def test_it_is_full_until_something_is_taken_back():
    workers = Workers(lambda number: number, threads=1, most=2)
    workers.give(1)
    workers.give(2)
    assert workers.is_full

    found = list(workers.take(waiting=True))

    assert found
    assert not workers.is_full
    list(workers.end())


def test_an_early_end_drops_what_has_not_begun_and_gives_back_what_has():
    begun, go_on = threading.Event(), threading.Event()

    def work(number):
        begun.set()
        assert go_on.wait(10)
        return number

    workers = Workers(work, threads=1, most=10)
    for number in range(5):
        workers.give(number)
    assert begun.wait(10)
    threading.Timer(0.05, go_on.set).start()

    ended = list(workers.end())

    assert [each.result for each in ended] == [0]
    assert workers.is_idle
    assert not any(thread.name.startswith("sync-") and thread.is_alive() for thread in workers._threads)
