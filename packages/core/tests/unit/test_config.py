"""Configuration files: every fault is found at once, at its line, with what to write instead."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import Field, field_validator, model_validator
from tidemill_core.config import (
    Config,
    ConfigFaults,
    Place,
    SecretStr,
    load,
    load_documents,
    parse_documents,
    validate,
)
from tidemill_core.errors import ConfigError


class Shell(Config):
    type: Literal["shell"]
    command: str


class Call(Config):
    type: Literal["python"]
    callable: str
    args: dict[str, int] = Field(default={})


class Retry(Config):
    count: int = Field(default=3, ge=0)
    delay_s: float = 1.0


class Task(Config):
    name: str
    action: Annotated[Shell | Call, Field(discriminator="type")] | None = None
    retry: Retry | None = None
    needs: tuple[str, ...] = ()


class Plan(Config):
    title: str = ""
    tasks: list[str | Task] = Field(default=[])
    by_name: dict[str, Task] = Field(default={})
    limit: int | list[int] = 1
    secret: SecretStr | None = None
    aliased: int = Field(default=0, alias="alias-name")

    @field_validator("title")
    @classmethod
    def _no_bang(cls, title: str) -> str:
        if "!" in title:
            raise ValueError("must not shout")
        return title

    @model_validator(mode="after")
    def _enough(self) -> "Plan":
        if self.title == "empty" and self.tasks:
            raise ValueError("an empty plan has no tasks")
        return self


def faults(text: str, *, file: str = "plan.yaml", env: dict[str, str] | None = None) -> list[str]:
    with pytest.raises(ConfigFaults) as caught:
        [validate(document, Plan) for document in parse_documents(text, file=file, env=env or {})]
    return [str(fault) for fault in caught.value.faults]


def plan(text: str, *, file: str = "plan.yaml", env: dict[str, str] | None = None) -> Plan:
    (document,) = parse_documents(text, file=file, env=env or {})
    return validate(document, Plan)


def test_all_faults_of_a_file_are_told_at_once_with_line_and_column() -> None:
    text = "titel: x\ntasks:\n  - name: a\n    needs: b\n  - nam: b\nlimit: many\n"

    assert faults(text) == [
        "plan.yaml:1:8: titel: unknown key; did you mean 'title'?",
        "plan.yaml:4:12: tasks[0].needs: Input should be a valid tuple",
        "plan.yaml:5:5: tasks[1].name: this key is required",
        "plan.yaml:5:10: tasks[1].nam: unknown key; did you mean 'name'?",
        "plan.yaml:6:8: limit: Input should be a valid integer, unable to parse string as an integer or Input should be a valid list",
    ]


def test_an_unknown_key_in_a_tagged_member_is_compared_with_that_members_keys() -> None:
    text = "tasks:\n- name: a\n  action: {type: python, callabel: f, args: {n: x}}\n"

    assert faults(text) == [
        "plan.yaml:3:3: tasks[0].action.callable: this key is required",
        "plan.yaml:3:36: tasks[0].action.callabel: unknown key; did you mean 'callable'?",
        "plan.yaml:3:49: tasks[0].action.args.n: Input should be a valid integer, unable to parse string as an integer",
    ]


def test_an_unknown_tag_is_told_at_the_tag_with_the_nearest_one() -> None:
    assert faults("tasks:\n- name: a\n  action:\n    type: shel\n    command: ls\n") == [
        "plan.yaml:4:11: tasks[0].action.type: unknown type 'shel'; did you mean 'shell'?"
    ]


def test_a_missing_tag_is_told_by_its_key() -> None:
    assert faults("by_name:\n  a:\n    name: a\n    action: {command: ls}\n") == [
        "plan.yaml:4:5: by_name.a.action.type: this key is required: it says which kind of entry this is"
    ]


def test_faults_of_union_members_that_were_not_meant_are_left_out() -> None:
    assert faults("tasks:\n- {name: a, retry: {count: -1}}\n- 7\n") == [
        "plan.yaml:2:28: tasks[0].retry.count: Input should be greater than or equal to 0",
        "plan.yaml:3:3: tasks[1]: Input should be a valid string; write it in quotes",
    ]


def test_a_validators_message_stands_at_its_field_and_a_models_at_the_model() -> None:
    assert faults("title: Go!\n") == ["plan.yaml:1:8: title: must not shout"]
    assert faults("\n\ntitle: empty\ntasks: [a]\n") == ["plan.yaml:3:1: an empty plan has no tasks"]


def test_an_alias_is_the_name_that_is_known_and_suggested() -> None:
    assert plan("alias-name: 3").aliased == 3
    assert faults("alias-nam: 3") == ["plan.yaml:1:12: alias-nam: unknown key; did you mean 'alias-name'?"]
    assert faults("alias-name: x") == [
        "plan.yaml:1:13: alias-name: Input should be a valid integer, unable to parse string as an integer"
    ]


def test_a_key_given_twice_is_a_fault_at_the_second() -> None:
    assert faults("title: a\nlimit: 1\ntitle: b\n") == ["plan.yaml:3:1: title: this key is given twice"]


@pytest.mark.parametrize(
    "merge",
    [
        "<<: *base\n  count: 5",
        "count: 5\n  <<: *base",
        "<<: {count: 1, delay_s: 2.0}\n  count: 5",
        "<<: [*base]\n  count: 5",
    ],
)
def test_a_key_overrides_the_same_key_of_a_merge(merge: str) -> None:
    text = f"by_name:\n  a: {{name: a, retry: &base {{count: 1, delay_s: 2.0}}}}\n  b:\n    name: b\n    retry:\n  {merge}\n"
    indented = text.replace(f"  {merge}", "      " + merge.replace("\n  ", "\n      "))

    assert plan(indented).by_name["b"].retry == Retry(count=5, delay_s=2.0)


def test_the_second_use_of_an_alias_with_a_merge_reads_the_same() -> None:
    text = "by_name:\n  a: &a {name: a, retry: &r {<<: {count: 2}, count: 4}}\n  b: *a\n"

    assert plan(text).by_name["b"] == plan(text).by_name["a"]


def test_a_fault_inside_an_alias_is_placed_where_it_was_written() -> None:
    assert faults("by_name:\n  a: &a\n    name: 1\n  b: *a\n") == [
        "plan.yaml:3:11: by_name.a.name: Input should be a valid string; write it in quotes",
        "plan.yaml:3:11: by_name.b.name: Input should be a valid string; write it in quotes",
    ]


def test_an_alias_inside_itself_is_refused() -> None:
    assert faults("tasks: &a [*a]\n") == ["plan.yaml:1:8: not YAML: an alias refers to what it stands in"]


def test_aliases_that_multiply_without_end_are_refused() -> None:
    layers = "".join(f"k{i}: &k{i} [{', '.join([f'*k{i - 1}'] * 10)}]\n" for i in range(1, 9))

    (fault,) = faults(f"k0: &k0 [{'x, ' * 10}]\n{layers}")

    assert "not YAML: more than 250000 values" in fault


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("tasks:\n\t- a\n", "plan.yaml:2:1: not YAML: a tab in the indentation; indent with spaces"),
        ("title: a: b\n", "plan.yaml:1:9: not YAML: mapping values are not allowed in this context"),
        ("title: [a\n", "plan.yaml:2:1: not YAML: did not find expected ',' or ']'"),
        ("title: 'a\n", "plan.yaml:2:1: not YAML: found unexpected end of stream"),
        ("a: 1\ntitle: \x07\n", "plan.yaml:2:8: not YAML: control characters are not allowed"),
        ("title: !python/name:os.system\n", "plan.yaml:1:8: not YAML: could not determine a constructor for the tag"),
        ("title: *nowhere\n", "plan.yaml:1:8: not YAML: found undefined alias"),
        ("? [a, b]\n: c\n", "plan.yaml:1:3: not YAML: a key must be a plain value, not a list or mapping"),
        ("title: " + "[" * 3000 + "]" * 3000, "plan.yaml: nested too deeply"),
    ],
)
def test_what_is_no_yaml_is_told_at_its_place(text: str, expected: str) -> None:
    (fault,) = faults(text)

    assert fault.startswith(expected)


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("NO", "NO"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2013-01-01", "2013-01-01"),
        ("1_000", "1_000"),
        ("010", "010"),
        ("10", 10),
        ("0x1F", 31),
        ("-3", -3),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-.inf", float("-inf")),
        ("true", True),
        ("~", None),
        ("''", ""),
        ("'7'", "7"),
    ],
)
def test_plain_scalars_follow_the_yaml_1_2_core_schema(scalar: str, value: object) -> None:
    (document,) = parse_documents(f"a: {scalar}\n")

    assert document.value == {"a": value}
    assert type(document.value["a"]) is type(value)


def test_every_document_of_a_file_is_parsed_and_placed() -> None:
    first, second = parse_documents("a: 1\n---\n---\n# nothing\n---\nb:\n  c: 2\n", file="two.yaml")

    assert (first.value, second.value) == ({"a": 1}, {"b": {"c": 2}})
    assert second.place(("b", "c")) == Place("two.yaml", 7, 6)
    assert second.place(("b",)) == Place("two.yaml", 6, 1)
    assert second.place(("b", "missing", 3)) == Place("two.yaml", 6, 1)


def test_json_is_parsed_with_tabs_pairs_and_exponents_as_json_means_them() -> None:
    text = '{\n\t"title":\t"\\ud83d\\ude00 a\\/b \\\\ud83d \\t",\n\t"limit":1E1,\n\t"tasks": ["on", "2013-01-01", "010"]\n}'

    found = plan(text, file="plan.json")

    assert found.title == "\U0001f600 a/b \\ud83d \t"
    assert found.limit == 10
    assert found.tasks == ["on", "2013-01-01", "010"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{'a': 1}", "plan.json:1:2: not JSON: Expecting property name enclosed in double quotes"),
        ('{\n "title": 1,\n}', "plan.json:2:12: not JSON: Illegal trailing comma before end of object"),
        ("title: a", "plan.json:1:1: not JSON: Expecting value"),
        ('{"limit": NaN}', "plan.json: not JSON: NaN is no JSON number"),
        ('{"title": "a", "title": "b"}', "plan.json:1:16: title: this key is given twice"),
        ('{\n\t"titel": "a"}', "plan.json:2:11: titel: unknown key; did you mean 'title'?"),
        ("[" * 100_000, "plan.json: not JSON: nested too deeply"),
        ("", "plan.json:1:1: not JSON: Expecting value"),
    ],
)
def test_json_faults_are_strict_and_placed(text: str, expected: str) -> None:
    (fault,) = faults(text, file="plan.json")

    if "trailing comma" in expected and sys.version_info < (3, 13):
        expected = "plan.json:3:1: not JSON: Expecting property name enclosed in double quotes"
    assert fault == expected


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    # YAML allows no control characters even where JSON does
    | st.text(
        st.characters(
            codec="utf-8",
            min_codepoint=32,
            exclude_characters="\x7f\ufeff\ufffe\uffff\u2028\u2029",
            exclude_categories=["Cc", "Cs"],
        )
    ),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text("abcdefgh-_ ü", min_size=1, max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)


@settings(max_examples=150)
@given(
    value=st.dictionaries(st.text("abc", min_size=1, max_size=3), _json),
    indent=st.sampled_from([None, 1, "\t"]),
    only_ascii=st.booleans(),
)
def test_any_json_reads_as_the_json_parser_reads_it(value: dict[str, object], indent: object, only_ascii: bool) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=only_ascii)  # type: ignore[arg-type]

    documents = parse_documents(text, file="any.json", interpolate=False)

    assert [document.value for document in documents] == [json.loads(text)]


def test_variables_are_replaced_in_texts_only() -> None:
    text = "title: '${USER}@${HOST:-local}:${EMPTY:-x}${EMPTY}'\nlimit: ${LIMIT}\n"

    found = plan(text, env={"USER": "me", "LIMIT": "7", "EMPTY": ""})

    assert (found.title, found.limit) == ("me@local:x", 7)


def test_a_dollar_that_begins_no_variable_stays() -> None:
    (document,) = parse_documents("a: 'pa$$word $HOME $${NAME} ${not a name} $'\n", env={})

    assert document.value == {"a": "pa$$word $HOME ${NAME} ${not a name} $"}


def test_unset_variables_are_all_told_with_their_place() -> None:
    assert faults("title: ${ONE}\ntasks: ['${TWO}']\n") == [
        "plan.yaml:1:8: title: environment variable ONE is not set and has no default",
        "plan.yaml:2:9: tasks[0]: environment variable TWO is not set and has no default",
    ]


def test_interpolation_can_be_left_out() -> None:
    (document,) = parse_documents("run: echo ${X}\n", interpolate=False)

    assert document.value == {"run": "echo ${X}"}


def test_a_secret_shows_neither_in_a_fault_nor_in_a_print(tmp_path: Path) -> None:
    class Login(Config):
        password: SecretStr = Field(min_length=20)

    (tmp_path / "login.yaml").write_text("password: ${PW}\n")

    with pytest.raises(ConfigFaults) as caught:
        load(tmp_path / "login.yaml", Login, env={"PW": "hush-hush"})

    assert "hush" not in str(caught.value)
    assert "hush" not in repr(Login(password=SecretStr("hush" * 10)))


def test_a_file_that_cannot_be_read_is_a_config_error(tmp_path: Path) -> None:
    (tmp_path / "latin.yaml").write_bytes(b"title: \xe9\n")

    with pytest.raises(ConfigError, match=r"nowhere\.yaml: cannot be read: No such file"):
        load(tmp_path / "nowhere.yaml", Plan)
    with pytest.raises(ConfigError, match=r"latin\.yaml: cannot be read: .*utf-8"):
        load(tmp_path / "latin.yaml", Plan)


def test_load_wants_exactly_one_document(tmp_path: Path) -> None:
    file = tmp_path / "plan.yaml"
    file.write_text("title: a\n---\ntitle: b\n")

    with pytest.raises(ConfigFaults, match="one document expected, 2 found"):
        load(file, Plan)
    assert [document.value["title"] for document in load_documents(file)] == ["a", "b"]


def test_a_byte_order_mark_is_skipped(tmp_path: Path) -> None:
    for name in ("a.yaml", "a.json"):
        (tmp_path / name).write_bytes(b'\xef\xbb\xbf{"title": "x"}')

        assert load(tmp_path / name, Plan).title == "x"


def test_attribute_docstrings_become_field_descriptions() -> None:
    class Documented(Config):
        rows: int = 1
        """Rows per batch."""

    assert Documented.model_json_schema()["properties"]["rows"]["description"] == "Rows per batch."


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Plan().title = "x"  # type: ignore[misc]


def test_every_task_of_a_long_file_is_checked() -> None:
    text = "tasks:\n" + "".join(f"- nam: t{i}\n  needs: [t{i}]\n" for i in range(1000))

    found = faults(text)

    assert len(found) == 2000
    assert found[-1] == "plan.yaml:2000:8: tasks[999].nam: unknown key; did you mean 'name'?"


@pytest.mark.parametrize("parser", ["CSafeLoader", "SafeLoader"])
def test_the_python_parser_reads_what_libyaml_reads(parser: str) -> None:
    program = (
        "import yaml, sys\n"
        f"if {parser!r} == 'SafeLoader': del yaml.CSafeLoader\n"
        "from tidemill_core.config import parse_documents\n"
        "d, = parse_documents('a: &a {b: NO, c: 1e3}\\nd: {<<: *a, c: 2}\\n')\n"
        "print(d.value, d.place(('d', 'b')).line)\n"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert done.stdout == "{'a': {'b': 'NO', 'c': 1000.0}, 'd': {'b': 'NO', 'c': 2}} 1\n"
