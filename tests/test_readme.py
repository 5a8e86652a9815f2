"""The README is short, and its drawing, contents and links are right."""

from __future__ import annotations

import re
from pathlib import Path

from queuectl.job import model

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = ROOT / "queuectl" / "guide"


def test_each_state_stands_in_the_drawing() -> None:
    drawing = README.split("```")[1]
    for state in model.State:
        assert f"{state}/" in drawing


def test_it_is_read_in_five_minutes() -> None:
    assert len(README.encode()) < 8500


def test_the_first_two_blocks_of_the_shell_set_it_up() -> None:
    install, test, *others = re.findall(r"^```sh\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    assert others == []  # .ci/run counts them
    assert "pip install" in install
    assert install.endswith("queuectl demo --run\n")
    assert test.endswith("pytest\n")


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
