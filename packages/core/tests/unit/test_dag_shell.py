"""Values in shell lines: one word each, judged by a real /bin/sh."""

import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tidemill_core.dag.shell import render_shell, shell_references
from tidemill_core.dag.template import TemplateError

TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12) | st.text(
    " '\"$`\\;&|<>(){}*?!#~\n-=a", max_size=12
)
LINES = [
    "printf '%s\\n' ${params.x}",
    'printf "%s\\n" ${params.x}',
    'echo "$(printf %s ${params.x})" >/dev/null; printf "%s\\n" ${params.x}',
    "if true; then printf '%s\\n' ${params.x}; fi",
    "(printf '%s\\n' ${params.x})",
    "y=${params.x}; printf '%s\\n' \"$y\"",
    "case a in a) printf '%s\\n' ${params.x};; esac",
    "printf '%s\\n' ${params.x} # a comment's quote\n",
    "echo $((1 << 2)) >/dev/null\nprintf '%s\\n' ${params.x}",
    "echo \\' >/dev/null; printf '%s\\n' ${params.x}",
    "cat <<EOF >/dev/null\nit's\nEOF\nprintf '%s\\n' ${params.x}",
]


def sh(line: str) -> str:
    return subprocess.run(["/bin/sh", "-c", line], capture_output=True, check=True, timeout=60).stdout.decode()


@pytest.mark.parametrize("line", LINES)
@settings(max_examples=20)
@given(value=TEXTS)
@example('a b\'; touch /tmp/never "$HOME" `id` $(id)')
@example("")
@example("-n")
def test_a_value_by_itself_reaches_the_command_as_one_word(line: str, value: str) -> None:
    assert f"{value}\n" == sh(render_shell(line, {"params": {"x": value}}))


@pytest.mark.parametrize(
    ("line", "inside"),
    [
        ("echo 'a ${params.x}'", "single quotes"),
        ('echo "a ${params.x}"', "double quotes"),
        ("sh -c 'echo ${params.x}'", "single quotes"),
        ("psql -c \"select 1 where a = '${params.x}'\"", "double quotes"),
        ("cat <<EOF\n${params.x}\nEOF\n", "a here-document"),
        ("cat <<'EOF'\n${params.x}\nEOF\n", "a here-document"),
        ("cat <<-EOF\n\ta\n\t${params.x}\n\tEOF\n", "a here-document"),
        ("echo `echo ${params.x}`", "backquotes"),
        ('echo "`echo ${params.x}`"', "backquotes"),
        ("echo ${y:-${params.x}}", "an expansion"),
        ("echo $((1 + ${params.x}))", "arithmetic"),
        ("true # ${params.x}", "a comment"),
    ],
)
def test_inside_quotes_only_plain_words_are_put_in(line: str, inside: str) -> None:
    assert line.replace("${params.x}", "a-1.csv") == render_shell(line, {"params": {"x": "a-1.csv"}})
    for value in ("a b", "it's", "$(id)", "x;y", "a\nb", "é"):
        with pytest.raises(TemplateError, match=inside) as refused:
            render_shell(line, {"params": {"x": value}})
        assert "$TIDEMILL_PARAM_X" in str(refused.value)


def test_the_same_line_is_read_on_after_what_is_quoted() -> None:
    line = "cat <<A <<B\n${params.a}\nA\n${params.b}\nB\necho ${params.c} \"$(echo ${params.d})\" '${params.e}'"

    found = {reference.parts[1]: reference.inside for reference in shell_references(line)}

    assert {
        "a": "a here-document",
        "b": "a here-document",
        "c": "",
        "d": "",
        "e": "single quotes",
    } == found


@given(st.text(" '\"$`\\;&|<>(){}#\nEOF", max_size=30))
def test_any_line_is_read_to_its_end(line: str) -> None:
    assert line in render_shell(f"{line}${{params.x}}", {"params": {"x": "plain"}})


def test_lists_and_numbers_are_one_word_of_json() -> None:
    assert "f '[1, \"a b\"]' 2 true" == render_shell(
        "f ${params.l} ${params.n} ${params.b}", {"params": {"l": [1, "a b"], "n": 2, "b": True}}
    )


def test_a_nul_character_is_refused() -> None:
    with pytest.raises(TemplateError, match="NUL"):
        render_shell("echo ${params.x}", {"params": {"x": "a\0b"}})
