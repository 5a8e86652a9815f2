"""The README is short, and its drawing, contents and links are right."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

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


def anchors(page: Path) -> set[str]:
    """The headings of a page as links name them."""
    titles = re.findall(
        r"^#+ (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
    )
    return {re.sub(r"[^a-z0-9_ -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize(
    "page", ["README.md", *(f"queuectl/guide/{path.name}" for path in sorted(PAGES.glob("*.md")))]
)
def test_each_link_leads_to_a_file_or_a_heading(page: str) -> None:
    path = ROOT / page
    for link in re.findall(r"\]\(([^)]+)\)", path.read_text()):
        name, _, anchor = link.partition("#")
        there = path.parent / name if name else path
        assert there.exists(), link
        assert not anchor or anchor in anchors(there), link


def test_a_page_of_several_sections_begins_with_its_contents() -> None:
    for page in PAGES.glob("*.md"):
        sections = re.findall(
            r"^## (.*)$", re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL), re.MULTILINE
        )
        linked = re.findall(r"\]\(#([^)]+)\)", page.read_text().partition("\n## ")[0])
        if len(sections) > 3:
            assert len(linked) == len(sections), page.name


def test_no_line_names_an_address_of_a_package_registry_or_a_home_directory() -> None:
    for path in (ROOT / "README.md", *PAGES.glob("*.md")):
        assert not re.search(r"https?://|/home/|/root/", path.read_text()), path
