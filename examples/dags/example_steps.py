# ruff: noqa: INP001
"""What the example DAGs call: plain functions that know nothing of Dagster or Tidemill."""

import csv
import random
import sqlite3
from collections import Counter
from pathlib import Path

REGIONS = ("north", "south", "east", "west")


def extract(folder: str, orders: int) -> dict[str, object]:
    """Write a CSV of orders, the same ones every time."""
    chance = random.Random(7)  # noqa: S311 - sample data
    path = Path(folder).absolute() / "orders.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "region", "cents"])
        writer.writerows([index, chance.choice(REGIONS), chance.randint(100, 9999)] for index in range(orders))
    return {"file": str(path), "rows": orders}


def sum_region(file: str, region: str) -> dict[str, object]:
    """Add up one region."""
    with Path(file).open(newline="") as rows:
        return {"total": sum(int(row["cents"]) for row in csv.DictReader(rows) if row["region"] == region)}


def load(folder: str, totals: list[int], rows: int) -> dict[str, object]:
    """Put the totals into a table, in one transaction."""
    connection = sqlite3.connect(Path(folder) / "shop.db")
    with connection:
        connection.execute("create table if not exists totals (region text primary key, cents integer)")
        connection.executemany("insert or replace into totals values (?, ?)", zip(REGIONS, totals, strict=True))
    connection.close()
    return {"grand_total": sum(totals), "rows": rows}


def load_table(folder: str, table: str, rows: int) -> dict[str, object]:
    """Pretend to load a table."""
    Path(folder, f"{table}.loaded").write_text(f"{rows}\n")
    return {"table": table, "rows": rows}


def count_words(file: str) -> dict[str, object]:
    """Count the words of a file."""
    words = Path(file).read_text().split()
    return {"words": len(words), "most": Counter(words).most_common(1)[0][0]}


def primes(below: int) -> dict[str, object]:
    """Count the primes below a number."""
    return {"count": sum(all(number % divisor for divisor in range(2, number)) for number in range(2, below))}


def deliver(folder: str, parts: int) -> dict[str, object]:
    """Write some files of a few lines each, and list them."""
    place = Path(folder).absolute()
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"part{index}.csv" for index in range(parts)]
    for lines, path in enumerate(paths, start=1):
        path.write_text("a line\n" * lines)
    return {"paths": [str(path) for path in paths]}


def add_up(lines: list[int]) -> dict[str, object]:
    """Add what the copies counted."""
    return {"total": sum(lines)}
