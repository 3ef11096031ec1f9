"""What reading ahead keeps of a listing: its order, its errors, and its end."""

import threading

import pytest
from tidemill_sync.listing import ahead


def alive():
    return [each for each in threading.enumerate() if each.name == "sync-list"]


def test_items_come_in_order_to_the_end():
    assert list(ahead(iter(range(100)))) == list(range(100))


def test_an_error_comes_after_what_was_read_before_it():
    def broken():
        yield 1
        raise ZeroDivisionError

    items = ahead(broken())

    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_no_more_is_read_than_is_allowed():
    read = []

    def counting():
        for number in range(100):
            read.append(number)
            yield number

    items = ahead(counting(), at_most=2)
    next(items)
    deadline = threading.Event()
    deadline.wait(0.3)

    assert len(read) <= 4
    items.close()


def test_an_endless_listing_ends_with_its_reader():
    def endless():
        while True:
            yield 1

    before = alive()
    items = ahead(endless())
    next(items)
    (thread,) = (each for each in alive() if each not in before)

    items.close()
    thread.join(10)

    assert not thread.is_alive()
