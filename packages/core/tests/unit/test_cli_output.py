"""What commands print: documents, lines and tables; and numbers out of their bounds."""

import datetime as dt
import json
from dataclasses import dataclass

import click
import pytest
from click.testing import CliRunner
from tidemill_core.cli_output import Bounded, emit, emit_line, schema_command
from tidemill_core.config import Config
from tidemill_core.errors import ConfigError


@dataclass(frozen=True)
class Fields:
    name: str
    at: dt.datetime


class Result:
    def as_dict(self):
        return {"rows": 3}


AT = dt.datetime(2013, 1, 1, 5, tzinfo=dt.UTC)


def test_a_document_is_made_of_results_their_own_way_or_field_by_field(capsys):
    emit([Result(), Fields("a", AT), {"b": None}], as_json=True)

    assert [{"rows": 3}, {"name": "a", "at": "2013-01-01T05:00:00+00:00"}, {"b": None}] == json.loads(
        capsys.readouterr().out
    )


def test_no_rows_are_a_line_for_people_and_an_empty_list_for_machines(capsys):
    emit([], as_json=False, empty="no loads")
    emit([], as_json=True)

    assert "no loads\n[]\n" == capsys.readouterr().out


def test_each_row_of_a_stream_is_one_line(capsys):
    emit_line(Result())
    emit_line(Fields("two\nlines", AT))

    lines = capsys.readouterr().out.splitlines()
    assert [{"rows": 3}, {"name": "two\nlines", "at": AT.isoformat()}] == [json.loads(line) for line in lines]


def test_a_table_in_a_pipe_is_aligned_and_never_cut(capsys):
    emit([{"table": "a", "note": "x" * 300}, {"table": "longer", "note": None}], as_json=False)

    head, first, second = capsys.readouterr().out.splitlines()
    assert ("table   note", "a       " + "x" * 300, "longer") == (head, first, second)


def test_a_table_on_a_terminal_shows_brackets_as_they_are(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)

    emit([{"table": "[red]a[/red]", "rows": 1}], as_json=False)

    assert "[red]a[/red]" in capsys.readouterr().out


@pytest.fixture
def command():
    @click.command()
    @click.option("--limit", type=Bounded(1, 9), default=3, help="x")
    @click.option("--from-row", type=Bounded(0), default=0, help="x")
    def show(limit, from_row):
        click.echo(f"{limit} {from_row}")

    return show


@pytest.mark.parametrize("words", [("--limit", "1"), ("--limit", "9"), ("--from-row", "0"), ("--from-row", "99")])
def test_the_bounds_themselves_are_allowed(command, words):
    assert 0 == CliRunner().invoke(command, words).exit_code


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (("--limit", "0"), "options: limit: Input should be greater than or equal to 1"),
        (("--limit", "10"), "options: limit: Input should be less than or equal to 9"),
        (("--from-row", "-1"), "options: from_row: Input should be greater than or equal to 0"),
    ],
)
def test_a_number_out_of_bounds_is_a_fault_of_the_configuration(command, words, fault):
    done = CliRunner().invoke(command, words)

    assert isinstance(done.exception, ConfigError)
    assert fault == str(done.exception)


def test_what_is_no_number_is_a_usage_error_and_the_bounds_are_in_the_help(command):
    runner = CliRunner()

    assert 2 == runner.invoke(command, ["--limit", "many"]).exit_code
    assert all(each in runner.invoke(command, ["--help"]).output for each in ("INTEGER 1..9", "INTEGER >= 0"))


def test_a_schema_is_that_of_the_model():
    class Limits(Config):
        rows: int = 3

    done = CliRunner().invoke(schema_command(lambda: Limits), [])

    assert Limits.model_json_schema() == json.loads(done.output)
