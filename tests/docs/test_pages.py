"""Links between pages lead somewhere; changelog fragments have their form."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/*.md")]
)
FRAGMENTS = sorted((ROOT / "docs/changelog.d").glob("*"))
KINDS = ("added", "changed", "fixed", "removed", "security")

_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?[^)]*\)")
_HEADING = re.compile(r"^#+ +(.*)$", re.MULTILINE)


def prose(page: Path) -> str:
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = _HEADING.findall(prose(page))
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


def dead_links(page: Path) -> list[str]:
    dead = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = (page.parent / place).resolve() if place else page
        is_dead = not target.exists() or ROOT not in (target, *target.parents)
        if is_dead or (anchor and anchor not in anchors(target)):
            dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_files_lead_somewhere(page: Path) -> None:
    assert dead_links(page) == []


def test_a_link_that_leads_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("[b](absent.md) [c](#nowhere) [d](https://x.test)\n")

    assert dead_links(page) == ["absent.md", "#nowhere"]


def twice(page: Path) -> list[str]:
    """Return the paragraphs that a page says again."""
    said = [part.strip() for part in prose(page).split("\n\n")]
    again = [part for part, count in Counter(said).items() if count > 1]
    return [part for part in again if part and not part.startswith("#")]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_says_a_paragraph_twice(page: Path) -> None:
    assert twice(page) == []


def test_a_paragraph_that_is_there_twice_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# A\n\nOne.\n\nTwo.\n\n# A\n\nOne.\n")

    assert twice(page) == ["One."]


def test_the_page_of_examples_names_each() -> None:
    page = (ROOT / "examples/README.md").read_text(encoding="utf-8")
    files = {path.name for path in ROOT.glob("examples/*.*")} - {"README.md"}

    assert files
    assert set(_LINK.findall(page)) & files == files


@pytest.mark.parametrize("fragment", FRAGMENTS, ids=lambda fragment: fragment.name)
def test_a_changelog_fragment_has_its_form(fragment: Path) -> None:
    text = fragment.read_text(encoding="utf-8")

    assert re.fullmatch(rf"[a-z0-9-]+\.({'|'.join(KINDS)})\.md", fragment.name)
    assert text.endswith(".\n")
    assert len(text.splitlines()) <= 4


def test_the_decisions_are_numbered_without_a_gap_and_have_their_sections() -> None:
    pages = sorted((ROOT / "docs/decisions").glob("*.md"))
    sections = [
        "Context",
        "Options",
        "Decision",
        "Consequences",
        "What would reverse it",
    ]

    assert [page.name[:5] for page in pages] == [
        f"{number:04}-" for number in range(1, len(pages) + 1)
    ]
    for page in pages:
        assert re.findall(r"^## (.*)$", prose(page), re.MULTILINE) == sections
