"""The door to the disk: strict YAML in, and files that are whole or not there."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import resource
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from queuectl import documents
from queuectl.errors import BadDocument, BadEncoding, HasNul
from queuectl.system import drafts, files, logs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.conftest import StoppedClock

quick = settings(max_examples=100, deadline=None, database=None)


def tree(text: str) -> documents.Node:
    return documents.load(text).tree


def descriptors() -> set[str]:
    return set(os.listdir("/proc/self/fd"))


@contextlib.contextmanager
def files_no_longer_than(size: int) -> Iterator[None]:
    """Let the kernel refuse every write past `size` bytes (EFBIG), after it took what fits."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


# ── strict YAML ───────────────────────────────────────────────────────────────────────────────


def test_scalars_stay_the_text_they_were_written_as() -> None:
    text = "a: no\nb: on\nc: 1e3\nd: 017\ne: 12:30:45\nf: 2026-11-22\ng: .inf\nh: 0x1F\ni: 1_000\n"
    assert list(documents.load(text).tree or {}) == list("abcdefghi")
    assert tree(text) == {
        "a": "no",
        "b": "on",
        "c": "1e3",
        "d": "017",
        "e": "12:30:45",
        "f": "2026-11-22",
        "g": ".inf",
        "h": "0x1F",
        "i": "1_000",
    }


_PIECES = [
    "a",
    "b1",
    " ",
    " #",
    ": ",
    ":",
    "#",
    "-",
    ",",
    "&",
    "*",
    "!",
    "|",
    ">",
    "'",
    '"',
    "%",
    "@",
    "[",
    "]",
]
_PIECES += ["{", "}", "~", "=", "null", "/", "\\", "\t", "\x7f", "é", "...", "?", "- "]
_VALUES = st.lists(st.sampled_from(["a", "b1", '"'] * 8 + _PIECES), max_size=4).map("".join)
_LINES = st.builds(
    "{}:{}{}".format, st.sampled_from(["a", "b", "null"]), st.sampled_from([" ", "  ", ""]), _VALUES
)


@settings(max_examples=500, deadline=None, database=None)
@given(st.lists(_LINES, min_size=1, max_size=2), st.booleans())
@example(["a: b1 #a"], True)
@example(["a: null"], True)
@example(['a: "\\n"'], True)
@example(['a: "\\"'], True)
def test_lines_of_key_and_value_are_read_as_the_yaml_parser_reads_them(lines: list[str], ended: bool) -> None:
    text = "\n".join(lines) + "\n" * ended
    assert said(documents.load, text) == said(lambda text: documents.load_all(text)[0], text)


def said(read: Callable[[str], documents.Document], text: str) -> documents.Document | None:
    try:
        return read(text)
    except BadDocument:
        return None


def test_keys_stay_text_too() -> None:
    assert tree("on: 1\n017: 2\n12:30:45: 3\n") == {"on": "1", "017": "2", "12:30:45": "3"}


@pytest.mark.parametrize("null", ["", "~", "null", "Null", "NULL"])
def test_a_plain_null_is_none(null: str) -> None:
    assert tree(f"a: {null}\n") == {"a": None}


@pytest.mark.parametrize("text", ["''", '""', "'null'", '"~"', "|\n  null"])
def test_a_quoted_null_is_text(text: str) -> None:
    assert isinstance(tree(f"a: {text}\n"), dict)
    assert tree(f"a: {text}\n") != {"a": None}


def test_json_reads_like_the_yaml_that_says_the_same() -> None:
    text = '{"a": 1.50, "b": true, "c": null, "d": [1e3, false], "e": {"f": "no"}, "g": -0}'
    assert tree(text) == {
        "a": "1.50",
        "b": "true",
        "c": None,
        "d": ["1e3", "false"],
        "e": {"f": "no"},
        "g": "-0",
    }


def test_numbers_of_any_length_stay_text_in_json() -> None:
    assert tree(f'{{"a": NaN, "b": {"1" * 5000}}}') == {"a": "NaN", "b": "1" * 5000}


def test_flow_style_that_is_no_json_is_read_as_yaml() -> None:
    assert tree("{command: echo hi, env: {A: b}}") == {"command": "echo hi", "env": {"A": "b"}}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("a: &x 1\n", "anchors"),
        ("a: &x [1]\n", "anchors"),
        ("a: &x {b: 1}\n", "anchors"),
        ("&x a: 1\n", "anchors"),
        ("&x\na: 1\n", "anchors"),
        ("a: *x\n", "alias"),
        ("a: [*x]\n", "alias"),
        ("*x : 1\n", "alias"),
        ("*x\n", "alias"),
        ("a: !!int 1\n", "tags"),
        ("a: !!python/object/apply:os.system [id]\n", "tags"),
        ("a: !mine {b: 1}\n", "tags"),
        ("a: ! 1\n", "tags"),
        ("!!map\na: 1\n", "tags"),
        ("!!str a: 1\n", "tags"),
        ("%TAG ! tag:example.com,2026:\n---\na: !x 1\n", "tags"),
        ("a: 1\na: 2\n", "stands twice"),
        ("a:\n  b: 1\n  'b': 2\n", "stands twice"),
        ("{a: 1, a: 2}\n", "stands twice"),
        ('{"a": 1, "a": 2}', "stands twice"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "stands twice"),
        ("? [a, b]\n: 1\n", "a key is not plain text"),
        ("? {a: b}\n: 1\n", "a key is not plain text"),
        ("~: 1\n", "a key is not plain text"),
        ("a: 1\n---\nb: 2\n", "several documents"),
        ("a: 1\n--- \n", "several documents"),
        ('{"a": 1}\n---\n{"b": 2}\n', "several documents"),
        ("", "empty"),
        ("# nothing but a comment\n", "empty"),
        ("a: [1\n", "has no ']'"),
        ("a: 'b\n", "does not end"),
        ("a: b: c\n", "looks like another field"),
        ("\ta: 1\n", "a tab"),
        ("a: \x01\n", "control characters"),
        ("a: \x1b[31m\n", "control characters"),
    ],
)
def test_what_the_queue_does_not_read_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(BadDocument, match=reason):
        documents.load(text)


def test_a_refusal_names_the_line() -> None:
    with pytest.raises(BadDocument, match=r"\(line 3\)"):
        documents.load("a: 1\nb: 2\nc: &x 3\n")


def test_a_bomb_of_aliases_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(BadDocument, match="anchors"):
        documents.load("\n".join(lines))


def test_a_bomb_of_merge_keys_is_refused_before_it_grows() -> None:
    lines = ["a0: &a0 {k: v}"] + [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 25)]
    with pytest.raises(BadDocument, match="anchors"):
        documents.load("\n".join(lines))


def test_a_merge_key_merges_nothing() -> None:
    assert tree("a: 1\n<<: {b: 2}\n") == {"a": "1", "<<": {"b": "2"}}


def nested(opening: str, closing: str, depth: int) -> str:
    return opening * depth + closing * depth


@pytest.mark.parametrize(
    ("before", "after"), [("a: ", "\n"), ('{"a": ', "}"), ("{a: ", "}"), ("? k\n: ", "\n")]
)
def test_twenty_levels_are_taken_and_twenty_one_are_not(before: str, after: str) -> None:
    deep: Any = tree(before + nested("[", "]", documents.MAX_DEPTH - 1) + after)
    deep = next(iter(deep.values()))
    levels = 1
    while deep is not None:
        levels += 1
        deep = deep[0] if deep else None
    assert levels == documents.MAX_DEPTH
    with pytest.raises(BadDocument, match="nested deeper than 20"):
        documents.load(before + nested("[", "]", documents.MAX_DEPTH) + after)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 30_000,
        "a: " + "[" * 30_000,
        "{" * 30_000,
        '{"a":' * 6_000,
        '{"a":' * 6_000 + "1" + "}" * 6_000,
        nested("[", "]", 30_000),
        "- " * 30_000,
        "? " * 30_000,
        "a: " + "- " * 15_000,
        "".join(f"{' ' * n}a:\n" for n in range(300)),
    ],
    ids=range(10),
)
def test_bottomless_nesting_is_refused_and_harms_nobody(text: str) -> None:
    with pytest.raises(BadDocument):
        documents.load(text)


@pytest.mark.parametrize("text", ["command: echo é\n", "echo plain\n", "echo 😀\n"])
@pytest.mark.parametrize("encoding", ["UTF-16LE", "UTF-16BE", "UTF-32LE", "UTF-32BE"])
def test_wide_text_without_a_mark_is_refused_with_the_command_that_converts_it(
    encoding: str, text: str
) -> None:
    with pytest.raises(BadEncoding) as caught:
        documents.text_of(text.encode(encoding))
    assert f"`iconv -f {encoding} -t UTF-8`" in caught.value.remedy


def test_other_encodings_are_refused() -> None:
    with pytest.raises(BadEncoding, match="not text in UTF-8"):
        documents.text_of("command: echo é\n".encode("latin-1"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_a_text_with_a_byte_order_mark_is_read_as_that_says(encoding: str) -> None:
    assert documents.text_of("\ufeffa: é😀\n".encode(encoding)) == "a: é😀\n"


@pytest.mark.parametrize(
    "data", [b"\xff\xfe", b"\xff\xfea", b"\xff\xfe\x00\xd8a\x00", b"\xff\xfe\x00\x00\xff"]
)
def test_a_mark_that_lies_is_refused(data: bytes) -> None:
    with pytest.raises(BadEncoding, match=r"iconv"):
        documents.text_of(data)


@pytest.mark.parametrize("data", [b"a: 1\nb: \0\n", b"a: 1\nb: torn" + bytes(100)])
def test_a_nul_is_refused_with_its_line(data: bytes) -> None:
    with pytest.raises(HasNul, match=r"^It holds a NUL character \(line 2\)\. Remove"):
        documents.text_of(data)


@quick
@given(st.text(alphabet=st.sampled_from("ab01 \t\n:-?!&*|>[]{},#'\"%@`~<=.\\\r\x85é\ufeff"), max_size=60))
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    with contextlib.suppress(BadDocument):
        documents.load_all(text)


@quick
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused_and_nothing_else(data: bytes) -> None:
    with contextlib.suppress(BadDocument):
        documents.load_all(documents.text_of(data))


plain_trees = st.recursive(
    st.none() | st.text(max_size=12),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@quick
@given(st.dictionaries(st.text(max_size=8), plain_trees, max_size=4))
def test_what_another_program_writes_as_yaml_or_json_is_read_as_it_was_meant(meant: dict[str, Any]) -> None:
    assert tree(yaml.safe_dump(meant, sort_keys=False)) == meant
    assert tree(yaml.safe_dump(meant, sort_keys=False, width=20)) == meant
    assert tree(json.dumps(meant)) == meant


# ── reading ───────────────────────────────────────────────────────────────────────────────────


def test_a_regular_file_is_read_whole(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * files.MAX_BYTES)
    assert files.read(tmp_path / "a") == b"x" * files.MAX_BYTES


def test_an_empty_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert files.read(tmp_path / "a") == b""


def test_one_byte_more_than_64_kib_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x" * (64 * 1024 + 1))
    with pytest.raises(files.NotAFile, match="65,537 bytes"):
        files.read(tmp_path / "a")


def test_a_missing_file_is_missing_and_no_refusal(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        files.read(tmp_path / "a")


def test_a_symlink_is_refused_even_to_a_good_file(tmp_path: Path) -> None:
    (tmp_path / "good").write_text("a: 1\n")
    (tmp_path / "a").symlink_to("good")
    with pytest.raises(files.NotAFile, match="symbolic link"):
        files.read(tmp_path / "a")


def test_a_symlink_to_nothing_is_refused_and_not_missing(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nothing")
    with pytest.raises(files.NotAFile, match="symbolic link"):
        files.read(tmp_path / "a")


def test_a_second_hard_link_is_refused_under_either_name(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a: 1\n")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    for name in "ab":
        with pytest.raises(files.NotAFile, match="second hard link"):
            files.read(tmp_path / name)
    (tmp_path / "b").unlink()
    assert files.read(tmp_path / "a") == b"a: 1\n"


def test_a_fifo_is_refused_without_waiting_for_a_writer(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a")
    with pytest.raises(files.NotAFile, match="fifo"):
        files.read(tmp_path / "a")


def test_a_socket_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path has at most 107 bytes
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("a")
        with pytest.raises(files.NotAFile, match="socket"):
            files.read(tmp_path / "a")


def test_a_directory_and_a_device_are_refused(tmp_path: Path) -> None:
    for place in (tmp_path, Path("/dev/null")):
        with pytest.raises(files.NotAFile, match="not a regular file"):
            files.read(place)


def test_a_refusal_leaves_no_descriptor_open(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "large").write_bytes(b"x" * 70_000)
    before = descriptors()
    for name in ("fifo", "large", "."):
        with pytest.raises(files.NotAFile):
            files.read(tmp_path / name)
    assert descriptors() == before


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells")
def test_a_file_that_somebody_is_writing_is_told_from_one_that_nobody_is(tmp_path: Path) -> None:
    path = tmp_path / "a"
    with path.open("w") as writer:
        writer.write("half")
        writer.flush()
        assert files.being_written(path) is True
        assert files.read_settled(path) is None
    assert files.being_written(path) is False
    assert files.read_settled(path) == b"half"
    with path.open() as _reader:
        assert files.being_written(path) is False


# ── writing ───────────────────────────────────────────────────────────────────────────────────


def test_an_append_adds_to_the_end(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\n")
    files.append(tmp_path / "a", b"two\n", sync=True)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_an_append_cuts_a_torn_end_first(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"one\nto")
    files.append(tmp_path / "a", b"two\n", keep=4)
    assert (tmp_path / "a").read_bytes() == b"one\ntwo\n"


def test_an_append_never_brings_a_file_back_to_life(tmp_path: Path) -> None:
    for keep in (None, 0):
        with pytest.raises(FileNotFoundError):
            files.append(tmp_path / "a", b"two\n", keep=keep)
    assert os.listdir(tmp_path) == []


def test_an_append_follows_no_symlink(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"one\n")
    (tmp_path / "a").symlink_to("target")
    with pytest.raises(FileNotFoundError):
        files.append(tmp_path / "a", b"two\n")
    assert (tmp_path / "target").read_bytes() == b"one\n"


@pytest.mark.parametrize(("keep", "left"), [(None, b"one\nto"), (4, b"one\n")])
def test_an_append_that_the_disk_takes_half_of_is_cut_off_again(
    tmp_path: Path, keep: int | None, left: bytes
) -> None:
    (tmp_path / "a").write_bytes(b"one\nto")
    before = descriptors()
    with files_no_longer_than(10), pytest.raises(OSError, match="File too large"):
        files.append(tmp_path / "a", b"x" * 100, keep=keep)
    assert (tmp_path / "a").read_bytes() == left
    assert descriptors() == before


def test_a_file_is_created_once(tmp_path: Path) -> None:
    files.create(tmp_path / "a", b"mine")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "a", b"another")
    assert (tmp_path / "a").read_bytes() == b"mine"


@pytest.mark.parametrize("is_there", [True, False])
@pytest.mark.parametrize(
    "act",
    [
        lambda path: os.close(logs.open_log(path)),
        lambda path: logs.open_append(path).close(),
        lambda path: files.patch(path, b"mine", 0),
        lambda path: os.close(logs.open_update(path)),
        lambda path: logs.keep_newest_lines(path, 1),
        lambda path: drafts.rewrite(path, lambda _: (b"mine", 0o600)),
    ],
    ids=["open_log", "open_append", "patch", "open_update", "keep_newest_lines", "rewrite"],
)
def test_nothing_is_written_through_a_symlink(
    tmp_path: Path, act: Callable[[Path], object], is_there: bool
) -> None:
    target = tmp_path / "target"
    if is_there:
        target.write_text("theirs\n" * 9)
    (tmp_path / "a").symlink_to("target")
    with pytest.raises(OSError):  # noqa: PT011 - ELOOP, or NotAFile where the kernel has no such flag
        act(tmp_path / "a")
    assert (tmp_path / "a").is_symlink()
    assert target.exists() == is_there
    assert not is_there or target.read_text() == "theirs\n" * 9


def test_nothing_is_created_through_a_dangling_symlink(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("elsewhere")
    with pytest.raises(FileExistsError):
        files.create(tmp_path / "a", b"")
    assert os.listdir(tmp_path) == ["a"]


def test_files_are_private_to_their_owner(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        files.create(tmp_path / "a")
        drafts.publish(drafts.draft(tmp_path, "b", b""))
        files.close(logs.open_new(tmp_path / "c"), logs.open_log(tmp_path / "d"))
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


class _Fickle:
    """Makes what is asked for, takes it away again and tells EEXIST, `times` times; as GlusterFS may."""

    def __init__(self, times: int, *, remembers: bool = False) -> None:
        self.left = times
        self.remembers = remembers

    def open(self, path: str, flags: int, mode: int = 0o777) -> int:
        if self.left:
            self.left -= 1
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        return os.open(path, flags, mode)

    def lstat(self, path: str) -> os.stat_result:
        if self.remembers:  # that it was not there
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return os.lstat(path)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


#: What makes something that must be new, and what also takes what is there.
NEW: dict[str, Callable[[str], object]] = {
    "create": files.create,
    "open_new": lambda path: files.close(logs.open_new(path)),
}
ANY: dict[str, Callable[[str], object]] = {
    "open_log": lambda path: files.close(logs.open_log(path)),
    "open_append": lambda path: logs.open_append(path).close(),
}


@pytest.mark.parametrize("make", [*NEW.values(), *ANY.values()], ids=[*NEW, *ANY])
@pytest.mark.parametrize("times", [1, 3])
def test_what_is_said_to_be_there_and_is_not_is_made_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], object], times: int
) -> None:
    monkeypatch.setattr(files, "kernel", _Fickle(times))
    make(f"{tmp_path}/it")
    assert os.listdir(tmp_path) == ["it"]


@pytest.mark.parametrize("make", NEW.values(), ids=NEW)
@pytest.mark.parametrize("remembers", [True, False])
def test_what_is_there_is_left_though_it_may_not_be_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[[str], object], remembers: bool
) -> None:
    (tmp_path / "it").write_text("first")
    monkeypatch.setattr(files, "kernel", _Fickle(0, remembers=remembers))
    with pytest.raises(FileExistsError):
        make(f"{tmp_path}/it")
    assert (tmp_path / "it").read_text() == "first"


def test_a_log_that_another_host_looks_for_while_it_is_made_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GlusterFS tells EEXIST of it even where it may be there."""
    (tmp_path / "log").write_bytes(b"before\n")
    monkeypatch.setattr(files, "kernel", _Fickle(1))
    with logs.open_append(tmp_path / "log") as log:
        log.write(b"after\n")
    assert (tmp_path / "log").read_bytes() == b"before\nafter\n"


def test_a_draft_is_hidden_until_it_is_published_and_whole_then(tmp_path: Path) -> None:
    before = descriptors()
    draft = drafts.draft(tmp_path, "a.yaml", b"command: x\n")
    assert os.listdir(tmp_path) == [".a.yaml.tmp"]
    drafts.sync([draft])
    drafts.publish(draft)
    assert os.listdir(tmp_path) == ["a.yaml"]
    assert (tmp_path / "a.yaml").read_bytes() == b"command: x\n"
    assert descriptors() == before


@pytest.mark.parametrize("count", [1, drafts.SYNCS - 1, drafts.SYNCS, 200])
def test_each_of_many_drafts_is_synced(tmp_path: Path, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = _Synced()
    monkeypatch.setattr(files, "kernel", synced)
    written = [drafts.draft(tmp_path, f"{number}.yaml", b"command: x\n") for number in range(count)]
    drafts.sync(written)
    assert sorted(synced.seen) == sorted(draft.fd for draft in written)
    for draft in written:
        drafts.discard(draft)


def test_a_sync_that_one_of_many_drafts_is_refused_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = [drafts.draft(tmp_path, f"{number}.yaml", b"") for number in range(100)]
    monkeypatch.setattr(files, "kernel", _Synced(refused=written[50].fd))
    with pytest.raises(OSError, match="Input/output error"):
        drafts.sync(written)
    for draft in written:
        drafts.discard(draft)


class _Synced:
    """The system, noting what is synced, and refusing one."""

    def __init__(self, refused: int | None = None) -> None:
        self.seen: list[int] = []
        self._refused = refused

    def fsync(self, fd: int) -> None:
        if fd == self._refused:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        os.fsync(fd)
        self.seen.append(fd)

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)


def test_a_discarded_draft_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    drafts.discard(drafts.draft(tmp_path, "a.yaml", b"x"))
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_a_draft_whose_name_is_too_long_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    with pytest.raises(OSError, match="too long"):
        drafts.draft(tmp_path, "a" * 251, b"x")
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_a_draft_that_the_disk_takes_half_of_leaves_nothing(tmp_path: Path) -> None:
    before = descriptors()
    with files_no_longer_than(10), pytest.raises(OSError, match="File too large"):
        drafts.draft(tmp_path, "a.yaml", b"x" * 100)
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_a_draft_does_not_take_over_the_draft_of_another(tmp_path: Path) -> None:
    (tmp_path / ".a.yaml.tmp").write_bytes(b"of another")
    with pytest.raises(FileExistsError):
        drafts.draft(tmp_path, "a.yaml", b"mine")
    assert (tmp_path / ".a.yaml.tmp").read_bytes() == b"of another"


def test_publishing_where_the_directory_has_gone_fails_and_leaves_nothing(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    before = descriptors()
    elsewhere = drafts.draft(tmp_path, "a.yaml", b"x")
    moved = drafts.Draft(elsewhere.fd, elsewhere.hidden, f"{gone}/a.yaml")
    gone.rmdir()
    with pytest.raises(FileNotFoundError):
        drafts.publish(moved)
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_publishing_a_draft_that_was_deleted_fails(tmp_path: Path) -> None:
    before = descriptors()
    draft = drafts.draft(tmp_path, "a.yaml", b"x")
    (tmp_path / ".a.yaml.tmp").unlink()
    with pytest.raises(FileNotFoundError):
        drafts.publish(draft)
    assert os.listdir(tmp_path) == []
    assert descriptors() == before


def test_replacing_puts_the_new_content_there_whole(tmp_path: Path) -> None:
    before = descriptors()
    drafts.replace(tmp_path / "a", b"one")
    drafts.replace(tmp_path / "a", b"two")
    assert (tmp_path / "a").read_bytes() == b"two"
    assert os.listdir(tmp_path) == ["a"]
    assert descriptors() == before


def test_replacing_that_fails_leaves_the_old_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").write_bytes(b"old")
    before = descriptors()
    with pytest.raises(IsADirectoryError):
        drafts.replace(tmp_path / "a", b"new")
    with files_no_longer_than(10), pytest.raises(OSError, match="File too large"):
        drafts.replace(tmp_path / "b", b"x" * 100)
    assert sorted(os.listdir(tmp_path)) == ["a", "b"]
    assert (tmp_path / "b").read_bytes() == b"old"
    assert descriptors() == before


def counted(path: Path, meddle: Callable[[], object]) -> Callable[[bytes], tuple[bytes, int]]:
    """A change that adds one to the number in a file; at its first call somebody meddles."""
    calls: list[bytes] = []

    def change(before: bytes) -> tuple[bytes, int]:
        calls.append(before)
        if len(calls) == 1:
            meddle()
        return str(int(before) + 1).encode(), 0o640

    return change


def test_a_change_builds_on_what_was_saved_meanwhile(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    drafts.rewrite(path, counted(path, lambda: path.write_text("70")))
    assert (path.read_text(), path.stat().st_mode & 0o777) == ("71", 0o640)
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_change_whose_draft_was_taken_for_abandoned_begins_again(tmp_path: Path) -> None:
    path, draft = tmp_path / "a", tmp_path / ".a.lock"
    path.write_text("1")

    def take_over() -> None:
        draft.unlink()
        drafts.rewrite(path, counted(path, lambda: None))

    drafts.rewrite(path, counted(path, take_over))
    assert path.read_text() == "3"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_draft_that_a_crash_left_is_taken_away(tmp_path: Path, clock: StoppedClock) -> None:
    path = tmp_path / "a"
    path.write_text("1")
    (tmp_path / ".a.lock").write_text("half of what was to be writ")
    drafts.rewrite(path, counted(path, lambda: None))
    assert clock.monotonic() > drafts.ABANDONED
    assert path.read_text() == "2"


def test_a_change_that_fails_leaves_the_file_and_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_text("no number")
    with pytest.raises(ValueError, match="invalid literal"):
        drafts.rewrite(path, counted(path, lambda: None))
    assert path.read_text() == "no number"
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


def test_a_patch_writes_in_place_and_never_creates(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"head: 1\nbeat: 1\n")
    inode = (tmp_path / "a").stat().st_ino
    files.patch(tmp_path / "a", b"beat: 2\n", 8)
    assert (tmp_path / "a").read_bytes() == b"head: 1\nbeat: 2\n"
    assert (tmp_path / "a").stat().st_ino == inode
    with pytest.raises(FileNotFoundError):
        files.patch(tmp_path / "b", b"beat: 2\n", 8)
    assert os.listdir(tmp_path) == ["a"]


def test_a_move_happens_or_is_lost(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    assert files.move(tmp_path / "a", tmp_path / "b@me")
    assert not files.move(tmp_path / "a", tmp_path / "b@other")
    assert os.listdir(tmp_path) == ["b@me"]


def test_a_move_that_is_said_to_have_failed_is_settled_by_ones_own_name(tmp_path: Path) -> None:
    # As a network file system leaves it that repeats a rename which has happened: ENOENT.
    (tmp_path / "b@me").write_bytes(b"x")
    assert files.move(tmp_path / "a", tmp_path / "b@me")
    assert (tmp_path / "b@me").read_bytes() == b"x"


def test_a_move_that_can_neither_have_happened_nor_be_lost_raises(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"x")
    (tmp_path / "file").touch()
    for target in (tmp_path / ("n" * 256), tmp_path / "file" / "b"):
        with pytest.raises(OSError, match=r"too long|Not a directory"):
            files.move(tmp_path / "a", target)
    assert (tmp_path / "a").read_bytes() == b"x"


def test_removing_tells_whether_there_was_something(tmp_path: Path) -> None:
    (tmp_path / "a").touch()
    assert files.remove(tmp_path / "a")
    assert not files.remove(tmp_path / "a")


def test_a_name_exists_whatever_it_points_to(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("nothing")
    assert files.exists(tmp_path / "a")
    assert not files.exists(tmp_path / "b")


def test_a_mark_changes_with_the_content_and_with_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"one")
    first = files.mark(path)
    assert files.mark(path) == first
    path.write_bytes(b"three")
    second = files.mark(path)
    drafts.replace(path, b"seven")
    assert len({first, second, files.mark(path)}) == 3


def test_probing_a_disk_leaves_nothing_even_where_it_is_full(tmp_path: Path) -> None:
    files.probe(tmp_path / ".probe")
    with files_no_longer_than(100), pytest.raises(OSError, match="File too large"):
        files.probe(tmp_path / ".probe")
    assert os.listdir(tmp_path) == []


def test_a_new_log_takes_no_old_name_and_an_old_log_is_emptied(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(FileExistsError):
        logs.open_new(tmp_path / "a")
    log = logs.open_log(tmp_path / "a")
    files.write_all(log, b"new")
    files.close(log)
    assert (tmp_path / "a").read_bytes() == b"new"


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 5000])
def test_a_log_that_has_grown_too_long_keeps_its_newest_lines_and_grows_on(
    tmp_path: Path, count: int
) -> None:
    log = tmp_path / "log"
    lines = [f"line {number:04}\n" for number in range(count)]
    log.write_text("".join(lines))
    with logs.open_append(log) as writer:
        logs.keep_newest_lines(log, 1000)
        writer.write(b"more\n")
    *kept, last = log.read_text().splitlines(keepends=True)
    assert last == "more\n"
    assert kept == (lines if count <= 100 else lines[-len(kept) :])
    assert count <= 100 or 450 < len("".join(kept)) <= 500
