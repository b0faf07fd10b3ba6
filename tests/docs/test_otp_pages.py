"""The reference of atomr leaves nothing out that the code offers."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import attrs
import pytest

import atomr.otp
import atomr.process
from atomr.core.child_spec import ChildSpec
from atomr.core.mailbox_limit import Overflow
from atomr.otp import (
    AgentRef,
    DynamicSupervisor,
    GenServer,
    PubSub,
    RegistryRef,
    Supervisor,
    sys,
)

PAGES = Path(__file__).parents[2] / "docs/reference/otp"
# Types of what is returned or accepted; nobody writes their names.
UNWRITTEN = {"StateAction", "StateInitResult", "TaskResults", "TaskStream"}
SECTIONS = ("What is different from", "Where trio meets it")


def said(*pages: str) -> set[str]:
    """Return the words that stand in code, in a line or in a block."""
    text = "\n".join(
        (PAGES / f"{page}.md").read_text(encoding="utf-8") for page in pages
    )
    code = re.findall(r"```.*?```|`[^`\n]+`", text, re.DOTALL)
    return set(re.findall(r"\w+", " ".join(code)))


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def arguments(kind: type) -> set[str]:
    return set(inspect.signature(kind).parameters)


def functions(module: object) -> set[str]:
    return {
        name
        for name, value in vars(module).items()
        if inspect.iscoroutinefunction(value) and value.__module__ == "atomr.otp.sys"
    }


@pytest.mark.parametrize(
    ("page", "names"),
    [
        ("agent", public(AgentRef) - {"agent"}),
        ("child-spec", {field.name for field in attrs.fields(ChildSpec)}),
        ("dynamic-supervisor", arguments(DynamicSupervisor)),
        ("process", {member.name for member in Overflow}),
        ("pubsub", public(PubSub)),
        ("registry", public(RegistryRef) - {"name"}),
        ("supervisor", arguments(Supervisor)),
        ("sys", functions(sys)),
        ("gen-server", set(GenServer.__annotations__) & {"hibernate_after_s"}),
    ],
)
def test_a_page_names_all_that_there_is(page: str, names: set[str]) -> None:
    assert names
    assert names - said(page) == set()


def test_each_name_of_the_packages_is_on_a_page() -> None:
    pages = sorted(page.stem for page in PAGES.glob("*.md"))
    names = {*atomr.process.__all__, *atomr.otp.__all__}

    assert names - said(*pages) - UNWRITTEN == set()


@pytest.mark.parametrize(
    "page", ["agent", "dynamic-supervisor", "gen-server", "process", "supervisor"]
)
def test_a_page_says_what_differs_and_where_trio_meets_it(page: str) -> None:
    text = (PAGES / f"{page}.md").read_text(encoding="utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)

    for section in SECTIONS:
        assert any(heading.startswith(section) for heading in headings), section
