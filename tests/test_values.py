"""Where the values of many jobs come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from queuectl.cli import values
from queuectl.errors import BadUsage
from queuectl.job.template import Template

if TYPE_CHECKING:
    from queuectl.cli.values import Values


def shown(given: Values) -> list[str]:
    assert list(given) == list(given), "they come from the start each time"
    assert [row.number for row in given] == list(range(1, len(list(given)) + 1))
    return [row.value for row in given]


def test_lines_lose_their_line_ends_alone() -> None:
    assert shown(values.of_text(b"a\r\nb c \n\n\xff\nlast", by_nul=False)) == ["a", "b c ", "\udcff", "last"]


def test_parts_that_end_in_nul_may_hold_line_ends() -> None:
    assert shown(values.of_text(b"a\0b\nc\r\0", by_nul=True)) == ["a", "b\nc\r"]


def test_several_names_give_every_combination_the_last_one_first() -> None:
    made = values.of_combinations(["lr=0.1,0.01", "seed=1..3"])
    assert made.names == ("lr", "seed")
    assert shown(made) == ["0.1 1", "0.1 2", "0.1 3", "0.01 1", "0.01 2", "0.01 3"]


@pytest.mark.parametrize(
    ("text", "listed"),
    [
        ("1..5", "1 2 3 4 5"),
        ("1..100..33", "1 34 67 100"),
        ("-2..1", "-2 -1 0 1"),
        ("08..11", "08 09 10 11"),
        ("a,1..2,b", "a 1 2 b"),
        ("v1..2", "v1..2"),
    ],
)
def test_a_list_may_hold_ranges(text: str, listed: str) -> None:
    assert list(values.listed("x", text)) == listed.split()


def test_a_long_range_is_not_written_out() -> None:
    assert len(values.listed("x", "1..100000000")) == 100_000_000


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1-3", "1 2 3"), ("1-7:3", "1 4 7"), ("3,7-8", "3 7 8"), ("5", "5"), ("0-1", "0 1")],
)
def test_an_array_is_written_as_for_slurm(text: str, numbers: str) -> None:
    given, limit = values.of_array(text)
    assert (shown(given), limit) == (numbers.split(), None)


def test_an_array_may_say_how_many_run_at_once() -> None:
    assert values.of_array("1-7:3%8")[1] == 8


def test_a_csv_file_names_its_columns() -> None:
    made = values.of_csv('a, b\n1,"x\ny"\n\n3,"4,5"\n', "f.csv")
    assert [row.values for row in made] == [{"a": "1", "b": "x\ny"}, {"a": "3", "b": "4,5"}]


@pytest.mark.parametrize(
    "text",
    ["lr", "=1", "a=", "a=1,,2", "a=5..1", "a=1..5..0", "1a=2"],
)
def test_wrong_values_for_a_name_are_refused(text: str) -> None:
    with pytest.raises(BadUsage, match="--with"):
        values.of_combinations([text])


def test_a_name_may_not_come_twice() -> None:
    with pytest.raises(BadUsage, match="twice"):
        values.of_combinations(["a=1", "a=2"])


@pytest.mark.parametrize("text", ["5-1", "1-5:0", "1-5%x", "1-5%", "1-5%0", "1,1-3", "", "a", "1-"])
def test_a_wrong_array_is_refused(text: str) -> None:
    with pytest.raises(BadUsage, match="--array"):
        values.of_array(text)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a,a\n1,2\n", "twice"),
        ("a,\n1,2\n", "no name"),
        ("a,b\n1\n", r"f\.csv, line 2: 1 columns, where the first has 2"),
        ('a,b\n"1,2\n', r"f\.csv, line 2: unexpected end"),
    ],
)
def test_a_wrong_csv_file_is_refused_with_its_line(text: str, why: str) -> None:
    with pytest.raises(BadUsage, match=why):
        list(values.of_csv(text, "f.csv"))


def test_lines_with_a_nul_are_refused() -> None:
    with pytest.raises(BadUsage, match="Say -0"):
        values.of_text(b"a\0b\0", by_nul=False)


@pytest.mark.parametrize("command", ["x {lx} {lr}", "x {3} {lr}", "x", "x {print}", ["x", "{seeds}", "{lr}"]])
def test_a_command_with_an_unknown_mark_or_without_any_is_refused(command: str | list[str]) -> None:
    given = values.of_combinations(["lr=1", "seed=1"])
    with pytest.raises(BadUsage, match=r"none of the values|uses no value"):
        values.refuse_unused(Template(command, given.names), given)


@pytest.mark.parametrize(
    "command", ["awk '{print}' {lr} \\;", "x {#}", "x $QUEUECTL_VALUE", "x $QUEUECTL_INDEX", ["x", "{lr}{2}"]]
)
def test_a_command_that_uses_a_value_is_taken(command: str | list[str]) -> None:
    given = values.of_combinations(["lr=1", "seed=1"])
    values.refuse_unused(Template(command, given.names), given)


def test_braces_that_are_no_mark_stay_where_there_are_no_names() -> None:
    given = values.of_words(["x"])
    values.refuse_unused(Template("awk {print} a{2} {}", given.names), given)
