"""What a budget lets in at once, and in which order."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from tidemill_sync.budget import Budget
from tidemill_sync.transfer import large_object_bytes
from tidemill_sync.uploads import part_bytes


@pytest.mark.parametrize("wish", [1, 30, 50, 100, 1_000])
def test_no_more_is_held_at_once_than_there_is(wish):
    budget, held, most, lock = Budget(100), [0], [0], threading.Lock()

    def work(_):
        with budget.hold(wish):
            with lock:
                held[0] += min(wish, 100)
                most[0] = max(most[0], held[0])
            threading.Event().wait(0.001)
            with lock:
                held[0] -= min(wish, 100)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(60)))

    assert most[0] <= 100
    assert held[0] == 0


def test_what_fails_gives_back_what_it_held():
    budget = Budget(10)
    with pytest.raises(ZeroDivisionError), budget.hold(10):
        raise ZeroDivisionError

    with budget.hold(10):
        pass


def test_a_large_wish_is_not_held_back_by_small_ones_that_came_later():
    budget, order = Budget(10), []
    first_in, let_go = threading.Event(), threading.Event()

    def first():
        with budget.hold(5):
            first_in.set()
            assert let_go.wait(10)

    def later(name, wish):
        with budget.hold(wish):
            order.append(name)

    threads = [threading.Thread(target=first)]
    threads[0].start()
    assert first_in.wait(10)
    for number, (name, wish) in enumerate([("large", 10), ("small", 1)], 1):
        threads.append(threading.Thread(target=later, args=(name, wish)))
        threads[-1].start()
        while len(budget._waiting) < number:
            threading.Event().wait(0.001)
    let_go.set()
    for thread in threads:
        thread.join(10)

    assert order == ["large", "small"]


@pytest.mark.parametrize("gib", [1, 50, 100, 500, 5_120])
def test_an_object_of_larger_parts_asks_for_more_memory(gib):
    size, four_parts = gib << 30, 4 * part_bytes(gib << 30)

    wish = large_object_bytes(size)

    assert -(-size // part_bytes(size)) <= 10_000
    assert wish > four_parts
    assert wish >= 7 * size // 10_000
    assert gib > 58 or wish == 42 << 20
