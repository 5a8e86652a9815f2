"""Values in commands: each arrives byte for byte, and no shell runs anything of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queuectl.errors import BadUsage
from queuectl.job.fields import from_fields
from queuectl.job.template import Row, Template

if TYPE_CHECKING:
    from pathlib import Path

SHELLS = [shell for shell in ("sh", "dash", "bash") if shutil.which(shell)]
#: Prints each argument and a NUL behind it.
PRINT = "printf '%s\\0'"
ODD = [
    "a b.jpg",
    "it's.jpg",
    "$(touch CANARY).jpg",
    "`touch CANARY`",
    "a;touch CANARY",
    "'; touch CANARY; '",
    '"; touch CANARY; "',
    "-dash",
    "new\nline",
    "ends in a line end\n",
    "\udcff\udcfe x\udc80",
    "\udcff\n",
    "*",
    "~",
    "",
    "$HOME",
    "a\\",
    "!x",
    "#x",
    "&",
    "é日本",
    "\\n%s",
]


def command(template: str | list[str], value: str) -> str | list[str]:
    """The command of a job's file for a value; what a file cannot hold is refused here."""
    made = from_fields(Template(template, ["value"]).fields(Row(1, {"value": value}))).command
    return made if isinstance(made, str) else list(made)


def run(shell: str, text: str, folder: Path) -> bytes:
    return subprocess.run([shell, "-c", text], cwd=folder, check=True, capture_output=True).stdout


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    ("template", "printed"),
    [
        ("P {}", "{}"),
        ('P "{}"', "{}"),
        ("P pre{}post", "pre{}post"),
        ('P "pre {} post"', "pre {} post"),
        ('P "x{}"{} ', "x{}{}"),
        ("( P {} )", "{}"),
        ('true # it"s\nP "{}"', "{}"),
        ('X="${HOME}" Y=$((1+1)) Z=$#; P "{}"', "{}"),
        ('P "$(true "(")"{}', "{}"),
        ("case=1; P {}", "{}"),
        ("true '{}{.}' && P {}", None),
    ],
)
def test_a_value_in_a_shell_command_arrives_byte_for_byte(
    shell: str, template: str, printed: str | None, tmp_path: Path
) -> None:
    if printed is None:
        with pytest.raises(BadUsage, match="between single quotes"):
            command(template.replace("P", PRINT), "x")
        return
    for value in ODD:
        made = command(template.replace("P", PRINT), value)
        assert isinstance(made, str)
        assert run(shell, made, tmp_path) == os.fsencode(printed.replace("{}", value)) + b"\0", made
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("shell", SHELLS)
@pytest.mark.parametrize(
    "template", ['P "$(P "{}" | cat)"', 'for x in {} "{}"; do P "$x"; done', "P {} $( (P {}) )"]
)
def test_nothing_of_a_value_is_run_within_a_substitution(shell: str, template: str, tmp_path: Path) -> None:
    for value in ODD:
        made = command(template.replace("P", PRINT), value)
        assert isinstance(made, str)
        assert os.fsencode(value.rstrip("\n")) in run(shell, made, tmp_path) or "*" in value
    assert not list(tmp_path.iterdir())


def test_a_value_in_a_list_of_words_arrives_byte_for_byte(tmp_path: Path) -> None:
    for value in ODD:
        made = command(["printf", r"%s\0", "{}", "x{}y"], value)
        words = made if isinstance(made, list) else ["sh", "-c", made]
        said = subprocess.run(words, cwd=tmp_path, check=True, capture_output=True).stdout
        assert said == os.fsencode(f"{value}\0x{value}y\0")
    assert not list(tmp_path.iterdir())


def test_the_variable_has_a_value_that_no_job_file_can_hold(tmp_path: Path) -> None:
    for template in (PRINT + ' "$QUEUECTL_VALUE"', ["sh", "-c", PRINT + ' "$QUEUECTL_VALUE"']):
        made = command(template, "a\udcffb")
        assert isinstance(made, str)
        assert run("sh", made, tmp_path) == b"a\xffb\0"


@pytest.mark.parametrize(
    ("template", "why"),
    [
        ("P '{}'", "between single quotes"),
        ("P `P {}`", "backquotes"),
        ("P `P x` {}", "backquotes"),
        ("P ${X:-{}}", r"in \${…}"),
        ("cat <<E\n{}\nE", "here-document"),
        ("cat <<E\nit's\nE\nP {}", "here-document"),
        ("P $((1+{}))", "arithmetic"),
        ("P $(( (1)+(2)+{} ))", "arithmetic"),
        ("(( {} ))", "arithmetic"),
        ('P "$(( {} ))"', "arithmetic"),
        ("P $'it\\'s' {}", r"after \$'"),
        ("a=({})", "array"),
        ('P "$(case x in x) P {};; esac)"', "case"),
        ("eval P {}", "eval"),
        ("sh -c 'P {}'", "between single quotes"),
        ('sh -c "P {}"', "script"),
        ('env X=1 /bin/bash -ec "cd x; P $(P {})"', "script"),
        ("sh -c {}", "script"),
        ("sh -c a\\ {}", "script"),
        ("python3 -c \"print('{}')\"", "script"),
        ('sh -c "P $QUEUECTL_VALUE"', "script"),
        ('bash -c "P ${QUEUECTL_VALUE%.x}"', "script"),
        (["sh", "-c", "P {}"], "script"),
        (["nice", "bash", "-xc", "P {}"], "script"),
    ],
)
def test_a_mark_is_refused_where_no_quoting_protects_its_value(template: str | list[str], why: str) -> None:
    with pytest.raises(BadUsage, match=why):
        Template(template, ["value"])


def test_a_script_is_told_to_be_put_between_single_quotes() -> None:
    with pytest.raises(BadUsage) as refused:
        Template('sh -c "P {}"', ["value"])
    assert "single quotes" in refused.value.remedy


@pytest.mark.parametrize(
    "template",
    [
        """sh -c 'P "$1"' _ {}""",
        """sh -c 'P "$QUEUECTL_VALUE"'""",
        'sh -c "P x" _ "$QUEUECTL_VALUE"',
        'P "${QUEUECTL_VALUE%.x}"',
        'sh -c "P x" _ "{}"',
        "grep -c {} x",
        """awk '{print $1}' {}""",
        "find . -name {} -exec wc \\;",
        "showcase {} && (true)",
        'P "((" {} "))"',
    ],
)
def test_a_mark_is_taken_where_its_value_is_safe(template: str) -> None:
    assert Template(template, ["value"]).uses_values


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("c {} {.}.png", "c 'd/a b.tar.gz' 'd/a b.tar'.png"),
        ("c {/} {//} {/.} {#}", "c 'a b.tar.gz' d 'a b.tar' 7"),
        ("c {value} {1} {2} {print} ${X}", "c 'd/a b.tar.gz' 'd/a b.tar.gz' {2} {print} ${X}"),
    ],
)
def test_marks_mean_what_gnu_parallel_means(template: str, filled: str) -> None:
    made = Template(template, ["value"]).fields(Row(7, {"value": "d/a b.tar.gz"}))
    assert made == {"command": filled, "env": {"QUEUECTL_VALUE": "d/a b.tar.gz", "QUEUECTL_INDEX": "7"}}


def test_named_values_stand_for_their_names_and_numbers() -> None:
    made = Template("t {lr} {2} {} {#}", ["lr", "seed"]).fields(Row(3, {"lr": "0.1", "seed": "5"}))
    assert made["command"] == "t 0.1 5 {} 3"
    assert made["env"] == {"QUEUECTL_VALUE": "0.1 5", "QUEUECTL_INDEX": "3"}


PIECES = """{} {} {} " ' $( ( ) (( )) $(( ${x:- } ${ # \\ ` $' <<E <<< ; & | echo x $ $" [ ] = a= $x * <( && !
fi done esac x) [[ ]] -n"""
SPACED = [
    " ",
    "\n",
    "E\n",
    "\\ ",
    "case x in ",
    "{ ",
    "; }",
    "eval ",
    "sh -c ",
    "if true;then ",
    "for i in ",
    "do ",
]
HOSTILE = [
    "$(touch CANARY)",
    "`touch CANARY`",
    "\ntouch CANARY\n",
    "' ;touch CANARY; '",
    '" ;touch CANARY; "',
    "');touch CANARY;('",
    "}touch CANARY;",
    "\\';touch CANARY;'",
    "$(touch CANARY)\udcff`touch CANARY`",
    "E\ntouch CANARY\n",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*PIECES.split(), *SPACED]), max_size=14), st.sampled_from(HOSTILE))
@example(['"', "((", '"', "{}"], HOSTILE[0])
@example(['"', "${x:-", "'", "}", '"', " ", "'", "a}", '"', " ", "{}", " ", "'"], HOSTILE[3])
@example(["sh -c ", "a=", "x", "{}"], HOSTILE[2])
def test_no_command_that_is_taken_runs_any_part_of_a_value(pieces: list[str], value: str) -> None:
    text = "".join(pieces) + ("" if "{}" in pieces else " {}")
    try:
        made = command(text, value)
    except BadUsage:
        return
    assert isinstance(made, str)
    for shell in SHELLS:
        with tempfile.TemporaryDirectory() as folder:
            subprocess.run(
                [shell, "-c", made],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=30,
                check=False,
            )
            assert "CANARY" not in os.listdir(folder), made
