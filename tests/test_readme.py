"""The README: its session goes as it is shown, and its links lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from queuectl.job import model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ROOT / "queuectl" / "guide"


def block(language: str, below: str) -> str:
    """The first block in a language below a heading."""
    text = README[README.index(f"\n{below}\n") :]
    found = re.search(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    assert found, f"there is no {language or 'plain'} block"
    return found[1]


def test_each_state_stands_in_the_drawing() -> None:
    drawing = block("", "## The life of a job")
    for state in model.State:
        assert f"{state}/" in drawing


def test_the_contents_are_those_of_the_guide() -> None:
    rows = re.findall(r"^\|.*\.md\).*$", (PAGES / "README.md").read_text(), re.MULTILINE)
    assert rows
    assert "\n".join(rows).replace("](", "](queuectl/guide/") in README


def test_each_link_leads_to_a_file() -> None:
    for page in (ROOT / "README.md", *PAGES.glob("*.md")):
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), (page, link)


def test_no_line_names_an_address_of_a_package_registry_or_a_home_directory() -> None:
    for path in (ROOT / "README.md", *PAGES.glob("*.md")):
        assert not re.search(r"https?://|/home/|/root/", path.read_text()), path


def environment(**more: str) -> dict[str, str]:
    """The environment of a shell in which `queuectl` is this one."""
    scripts = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", "TZ": "UTC", **more}


def without_chance(text: str) -> str:
    """The text with what differs from run to run made equal."""
    for pattern, word in (
        (r"\d{8}T\d{6}\.\d{6}Z", "STAMP"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3}Z", "TIME"),
        (r"\b[A-Za-z0-9-]+-\d+-[0-9a-f]{4}\b", "WORKER"),
        (r"\(pid \d+\)", "(pid PID)"),
        (r"in \d[\d.e-]* s", "in SECONDS"),
        (r"\d[\d.]* s ago {2,}", "AGO  "),
        (r"WHEN {2,}", "WHEN  "),
    ):
        text = re.sub(pattern, word, text)
    return text


def test_the_session_goes_as_it_is_shown(tmp_path: Path) -> None:
    session = block("console", "## A session")
    typed = re.findall(r"^\$ (.*)$", session, re.MULTILINE)
    assert len(typed) == 6
    place = tmp_path / "jobs"
    shown = []
    for line in typed:
        shown.append(f"$ {line}\n")
        here = line.replace("/tmp/jobs", str(place))
        ran = subprocess.run(
            ["sh", "-ec", here],
            env=environment(QUEUECTL_SPOOL=str(place)),
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=True,
        )
        shown.append(ran.stdout.replace(str(place), "/tmp/jobs"))
    assert without_chance("".join(shown)) == without_chance(session)
