"""What config.yaml may say, how it is explained, and how it is edited."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import given
from hypothesis import settings as trials
from hypothesis import strategies as st

from queuectl import settings
from queuectl.errors import BadSetting
from queuectl.settings import KEYS, Settings, edited, key_name, parse_value, template
from queuectl.system.medium import Medium

if TYPE_CHECKING:
    from pathlib import Path


def parse(text: str) -> dict[str, Any]:
    """The values that a config.yaml sets; raises the first error."""
    values, faults = settings.read(text)
    for fault in faults.values():
        raise fault
    return values


quick = trials(max_examples=100, deadline=None, database=None)
YEAR = 365 * 86400

# ── keys and bounds ───────────────────────────────────────────────────────────────────────────


def test_every_setting_is_a_key_and_every_key_is_a_setting() -> None:
    assert list(Settings._fields) == list(KEYS)


@pytest.mark.parametrize(
    ("name", "good", "bad"),
    [
        ("scheduling_mode", ["priority", "fifo"], ["lifo", "FIFO", "", "0"]),
        ("priority", ["0", "10"], ["-1", "11", "5.0", "high", "", "1e1"]),
        ("job_timeout_seconds", ["0", "0.5", "1h", str(YEAR)], ["-1", str(YEAR + 1), "never", "inf", "nan"]),
        ("max_retries", ["0", "1000000"], ["-1", "1000001", "3.0", "no", "1e3", "1_000"]),
        ("backoff_base", ["0", "1.5", "9999"], ["-1", "10000", "two", "1e3", "2m"]),
        ("max_backoff_seconds", ["0", "5m", str(YEAR)], ["-1", str(YEAR + 1), "12:30:45"]),
        ("retry_delay", ["0", "90s", "1m30s", str(YEAR)], ["-1", str(YEAR + 1), "soon"]),
        ("backoff_jitter", ["0", "0.5", "1"], ["-0.1", "1.1", "half"]),
        ("lock_lease_seconds", ["1", "5m", "86400"], ["0.9", "0", "86401", "long"]),
        ("poll_interval", ["0.05", "50ms", "3600"], ["0.04", "0", "3601", "often"]),
        ("stop_grace_seconds", ["0", "0.3", "3600"], ["-1", "3601", "gently"]),
        ("durability", ["filed", "full", "none"], ["some", "None", "true"]),
        ("max_output_bytes", ["0", "1000", "67108864"], ["-1", "1e6", "64 MiB", "1" * 17]),
        ("trusted_users", ["none", "alice", "alice,bob", "1000"], ["a/b", "alice; bob", "*"]),
    ],
)
def test_each_key_takes_what_is_within_its_bounds_and_no_more(
    name: str, good: list[str], bad: list[str]
) -> None:
    for text in good:
        assert isinstance(parse_value(name, text), type(getattr(settings.DEFAULTS, name)))
        assert list(parse(f"{name}: {text}\n")) == [name]
    for text in bad:
        with pytest.raises(BadSetting, match=f"^{name}: .* is not .*It means: "):
            parse_value(name, text)
        with pytest.raises(BadSetting, match=f"^{name}: "):
            parse(f"{name}: '{text}'\n")


@pytest.mark.parametrize(
    "text",
    [
        template(),
        edited(template(), "max_retries", "5"),
        "# ä comment\n\nmax-retries:   5  # five\n  # more\npoll_interval: 2.5\n",
        "",
        "\n",
        "launcher: srun --ntasks=1\ndurability: full",
    ],
)
def test_a_plain_config_is_read_as_yaml_has_it_without_importing_a_yaml_reader(text: str) -> None:
    read = "import sys; from queuectl import settings; print(settings.read(sys.argv[1]).values)"
    read += "; assert 'yaml' not in sys.modules"
    got = subprocess.run([sys.executable, "-c", read, text], capture_output=True, text=True, check=True)
    meant = {
        key_name(key): parse_value(key_name(key), str(item))
        for key, item in (yaml.safe_load(text) or {}).items()
    }
    assert got.stdout == f"{meant}\n"


def test_the_bounds_are_told_for_every_key() -> None:
    bounded = {name for name in KEYS if not isinstance(getattr(settings.DEFAULTS, name), str)}
    for name in bounded:
        with pytest.raises(BadSetting, match=r"a (whole )?number (of seconds )?from [\d.e+,]+ to [\d.e+,]+"):
            parse_value(name, "x")


def test_times_are_taken_with_their_units() -> None:
    values = parse("job_timeout_seconds: 1.5h\nretry_delay: 250ms\nlock_lease_seconds: 2m\n")
    assert values == {"job_timeout_seconds": 5400.0, "retry_delay": 0.25, "lock_lease_seconds": 120.0}


@pytest.mark.parametrize("value", ["[1]", "{a: 1}", "[]"])
def test_a_list_or_mapping_is_no_value(value: str) -> None:
    with pytest.raises(BadSetting, match="max_retries: this is not a plain value"):
        parse(f"max_retries: {value}\n")


@pytest.mark.parametrize("name", list(KEYS))
def test_a_dash_is_as_good_as_an_underscore(name: str) -> None:
    assert key_name(name.replace("_", "-")) == name
    assert key_name(f" {name} ") == name


def test_older_names_are_known_and_mean_one_key_each() -> None:
    assert key_name("timeout") == key_name("command_timeout") == key_name("command-timeout")
    assert parse("timeout: 5\n") == parse("command-timeout: 5\n") == {"job_timeout_seconds": 5.0}
    assert not set(settings.OLDER) & set(KEYS)


def test_an_unknown_key_is_answered_with_the_nearest() -> None:
    with pytest.raises(BadSetting, match=r"no key 'max_retry'. Did you mean 'max_retries'\?"):
        parse("max_retry: 3\n")
    with pytest.raises(
        BadSetting,
        match=r"Known are: scheduling_mode, .*durability, max_output_bytes, trusted_users, launcher\.",
    ):
        key_name("zzz")


def test_a_key_that_is_set_under_two_names_is_refused() -> None:
    for text in (
        "timeout: 5\njob_timeout_seconds: 6\n",
        "max_retries: 1\nmax-retries: 1\n",
        "max_retries: null\nmax-retries: 1\n",
    ):
        with pytest.raises(BadSetting, match=r"^It sets \w+ twice"):
            parse(text)


NULLS = ["", " null", " Null", " NULL", " ~", " # why", " NULL # why"]


@pytest.mark.parametrize("text", ["", "# nothing\n", "---\n", *(f"max_retries:{null}\n" for null in NULLS)])
def test_what_is_not_said_is_not_set(text: str) -> None:
    assert parse(text) == {}


def reading(text: str) -> tuple[dict[str, Any], list[str]]:
    values, faults = settings.read(text)
    return values, sorted(faults)


@pytest.mark.parametrize("name", ["max_retries", "retry_delay", "durability", "trusted_users", "launcher"])
@pytest.mark.parametrize(
    "value",
    [
        *NULLS,
        *(" 3", " 03", " +3", " 3.0", " 1e3", " 0x1f", " 1_000", " .5", " 12:30:45", " 5m", " .inf", " .nan"),
        *(
            " none",
            " None",
            " no",
            " off",
            " true",
            " full",
            " -",
            " - # why",
            " --",
            " -1",
            " ...",
            " ---",
            " .",
        ),
        *(" 2026-11-08", " a#b", " a # b", " 3\t", " 3 ", " '3'", ' "null"', " '~'", " nUll", " alice"),
        *(" 3 # caf\xe9", " 3 # \x07", " 3 # \x85priority: 5", " 3 # \u2028priority: 5", " 3 #\r"),
    ],
)
def test_a_value_means_the_same_whatever_other_lines_say(name: str, value: str) -> None:
    """A file of plain lines is read without YAML; a key in quotes has all of it read as YAML."""
    alone, beside = reading(f"{name}:{value}\n"), reading(f"{name}:{value}\n'backoff_jitter': 0.5\n")
    if "" in alone[1] or "" in beside[1]:
        assert alone[1] == beside[1] == [""]
    else:
        assert beside == (alone[0] | {"backoff_jitter": 0.5}, alone[1])


@pytest.mark.parametrize(
    ("text", "values", "faults"),
    [
        ("max_retries: lots\npriority: 4\n", {"priority": 4}, ["max_retries"]),
        ("max_retrys: 1\npriority: 4\n", {"priority": 4}, ["max_retrys"]),
        ("timeout: 1\njob_timeout_seconds: 2\npriority: 4\n", {"priority": 4}, ["job_timeout_seconds"]),
        ("max_retries: [1]\npriority: 4\nretry_delay: x\n", {"priority": 4}, ["max_retries", "retry_delay"]),
        ("max_retries: [\npriority: 4\n", {}, [""]),
        ("- 1\n", {}, [""]),
    ],
)
def test_what_can_be_read_of_a_broken_config_is(text: str, values: dict[str, Any], faults: list[str]) -> None:
    assert reading(text) == (values, faults)


@pytest.mark.parametrize(
    "text",
    [
        "- max_retries\n",
        "just text\n",
        "max_retries: 1\n---\nmax_retries: 2\n",
        "max_retries: &a 1\n",
        "max_retries: !!int 1\n",
        "max_retries: [\n",
        "max_retries: 1\nmax_retries: 2\n",
    ],
)
def test_a_config_that_is_not_one_strict_mapping_is_refused(text: str) -> None:
    with pytest.raises(BadSetting, match=r"^(It is not one mapping|The YAML or JSON is wrong|It sets)"):
        parse(text)


def test_a_policy_takes_from_the_job_what_it_says_and_the_rest_from_the_settings() -> None:
    values = Settings(max_retries=7, backoff_base=3.0, max_backoff_seconds=9.0, retry_delay=1.0)
    assert (values.policy(None, None).max_retries, values.policy(None, None).backoff_base) == (7, 3.0)
    assert (values.policy(0, 0.0).max_retries, values.policy(0, 0.0).backoff_base) == (0, 0.0)
    assert values.policy(0, 0.0).max_backoff == 9.0
    assert values.policy(0, 0.0).retry_delay == 1.0
    assert values.policy(0, 0.0).jitter == values.backoff_jitter


# ── the template ──────────────────────────────────────────────────────────────────────────────


def test_the_template_sets_nothing_and_explains_everything() -> None:
    text = template()
    assert parse(text) == {}
    for name, key in KEYS.items():
        assert f"\n# {key.meaning}\n# {name}: " in text


def test_the_template_shows_the_defaults() -> None:
    keys = "|".join(KEYS)
    said = re.sub(rf"^# (({keys}): )", r"\1", template(), flags=re.MULTILINE)
    assert Settings(**parse(said)) == Settings()
    assert len(parse(said)) == len(KEYS)


def test_every_text_in_the_template_can_be_read_by_any_yaml_program() -> None:
    keys = "|".join(KEYS)
    said = re.sub(rf"^# (({keys}): )", r"\1", template(), flags=re.MULTILINE)
    assert yaml.safe_load(said) == Settings()._asdict()


values_of_all_kinds = st.fixed_dictionaries(
    {},
    optional={
        "scheduling_mode": st.sampled_from(["priority", "fifo"]),
        "priority": st.integers(0, 10),
        "job_timeout_seconds": st.integers(0, YEAR).map(float)
        | st.integers(0, 10**6).map(lambda n: n / 1000),
        "max_retries": st.integers(0, 1_000_000),
        "backoff_base": st.integers(0, 9999).map(float),
        "max_backoff_seconds": st.integers(0, YEAR).map(float),
        "durability": st.sampled_from(["filed", "full", "none"]),
    },
)


@quick
@given(values_of_all_kinds)
def test_a_template_that_is_edited_sets_exactly_what_was_set(values: dict[str, Any]) -> None:
    text = template()
    for name, value in values.items():
        text = edited(text, name, settings.shown(value))
    assert parse(text) == values


# ── editing ───────────────────────────────────────────────────────────────────────────────────


def test_setting_a_key_anew_changes_its_line_and_keeps_its_comment() -> None:
    text = "# ours\nmax_retries: 3   # as agreed\npriority: 2\n"
    assert edited(text, "max_retries", "5") == "# ours\nmax_retries: 5   # as agreed\npriority: 2\n"


def test_unsetting_a_key_removes_its_line_and_no_other() -> None:
    text = "# ours\nmax_retries: 3   # as agreed\n# theirs\npriority: 2\n"
    assert edited(text, "max_retries", None) == "# ours\n# theirs\npriority: 2\n"


def test_unsetting_what_is_not_set_changes_nothing() -> None:
    assert edited(template(), "priority", None) == template()


@pytest.mark.parametrize("name", list(KEYS))
def test_a_key_that_the_template_explains_is_set_below_its_explanation(name: str) -> None:
    value = settings.shown(getattr(settings.DEFAULTS, name))
    text = edited(template(), name, value)
    assert f"# {KEYS[name].meaning}\n# {name}: {value}\n{name}: {value}\n" in text
    assert text.replace(f"\n{name}: {value}\n", "\n") == template()


@pytest.mark.parametrize("text", ["", "priority: 2\n", "priority: 2", "# only a comment"])
def test_a_key_that_nothing_tells_of_is_set_at_the_end(text: str) -> None:
    result = edited(text, "max_retries", "5")
    assert result.startswith(text)
    assert result.endswith("max_retries: 5\n")
    assert parse(result) == parse(text) | {"max_retries": 5}


@pytest.mark.parametrize(
    "line", ["timeout: 5", "command-timeout: 5", "'timeout': 5", "job-timeout-seconds: 5"]
)
def test_a_line_under_another_name_of_the_key_is_the_one_that_is_changed(line: str) -> None:
    assert edited(f"{line} # why\n", "job_timeout_seconds", "7") == "job_timeout_seconds: 7 # why\n"
    assert edited(f"{line} # why\n", "job_timeout_seconds", None) == ""


def test_a_config_of_another_layout_is_left_to_a_person() -> None:
    for text in ("{max_retries: 3}\n", "  max_retries: 3\n", "priority: 3\n...\n", "max_retries:\n  3\n"):
        with pytest.raises(BadSetting):
            edited(text, "max_retries", "5")


def test_setting_a_value_that_cannot_be_read_mends_it() -> None:
    assert edited("max_retries: lots # ours\n", "max_retries", "5") == "max_retries: 5 # ours\n"
    assert edited("max_retries: lots\npriority: 1\n", "max_retries", None) == "priority: 1\n"


def test_a_value_that_cannot_be_read_hinders_no_change_of_another() -> None:
    assert edited("max_retries: lots\npriority: 1\n", "priority", "5") == "max_retries: lots\npriority: 5\n"


def test_a_value_out_of_bounds_is_never_written() -> None:
    for value in ("-1", "many", "5 # six", "5\npriority: 1", "[5]", "&a 5"):
        with pytest.raises(BadSetting):
            edited("max_retries: 3\n", "max_retries", value)


@quick
@given(
    st.lists(
        st.tuples(st.sampled_from(["max_retries", "priority"]), st.none() | st.integers(0, 10).map(str)),
        max_size=8,
    ),
    st.sampled_from(["", template(), "# mine\nmax_retries: 1 # one\n", "priority: 1\n\n# end"]),
)
def test_any_number_of_edits_leaves_the_last_word_of_each_and_every_comment(
    edits: list[tuple[str, str | None]], text: str
) -> None:
    wanted = parse(text)
    comments = [line for line in text.splitlines() if line.startswith("#")]
    for name, value in edits:
        text = edited(text, name, value)
        wanted.pop(name, None)
        wanted |= {} if value is None else {name: int(value)}
    assert parse(text) == wanted
    assert [line for line in text.splitlines() if line.startswith("#")] == comments


# ── a spool's own ─────────────────────────────────────────────────────────────────────────────


def test_settings_are_read_from_the_spool(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("max-retries: 1\n")
    assert settings.load(tmp_path) == Settings(max_retries=1)


def test_a_missing_config_is_missing_and_no_default(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        settings.load(tmp_path)


def test_a_change_is_in_force_at_the_next_look(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("max_retries: 1\n")
    live = settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat()))
    assert live.now().max_retries == 1
    path.write_text("max_retries: 22\n")
    assert live.now().max_retries == 22


@pytest.mark.parametrize(
    "broken", [b"max_retries: many\n", b"max_retries: [\n", b"\xff\xfea", b"\xe9", b"a: 1\n", b"\0"]
)
def test_a_broken_config_keeps_the_last_good_values_and_says_so(tmp_path: Path, broken: bytes) -> None:
    path = tmp_path / "config.yaml"
    path.write_text("max_retries: 1\n")
    live = settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat()))
    assert live.now().max_retries == 1
    assert live.trouble is None
    path.write_bytes(broken)
    assert live.now().max_retries == 1
    assert "The last good values stay in force." in str(live.trouble)
    path.write_text("max_retries: 333\n")
    assert live.now().max_retries == 333
    assert live.trouble is None


def test_the_first_look_at_a_broken_config_takes_what_can_be_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("launcher: srun\nmax_retries: many\n")
    live = settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat()))
    assert (live.now().launcher, live.now().max_retries) == ("srun", settings.DEFAULTS.max_retries)
    assert "What cannot be read has its default." in str(live.trouble)


def test_a_config_that_went_away_is_trouble_of_the_disk(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("")
    live = settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat()))
    live.now()
    os.unlink(tmp_path / "config.yaml")
    with pytest.raises(FileNotFoundError):
        live.now()


def test_a_file_that_is_being_saved_is_read_once_it_is_whole(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("max_retries: 7\n")
    live = settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat()))
    assert live.now().max_retries == 7
    with config.open("w") as file:
        assert live.now().max_retries == 7
        file.write("max_retries: 8\n")
        file.flush()
        assert live.now().max_retries == 7
    assert live.now().max_retries == 8


def test_the_first_look_reads_a_file_that_somebody_holds_open_for_writing(tmp_path: Path) -> None:
    """There are no values yet that could hold instead, and the defaults are nobody's choice."""
    config = tmp_path / "config.yaml"
    config.write_text("max_retries: 7\n")
    with config.open("a"):
        assert settings.Live(tmp_path, Medium(str(tmp_path), tmp_path.stat())).now().max_retries == 7


def test_users_are_trusted_by_name_or_by_number_besides_root() -> None:
    assert settings.trusted_ids("4242,root,no-such-user-here") == {0, 4242}
    assert settings.trusted_ids("none") == {0}
