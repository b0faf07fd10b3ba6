"""The reference names what there is, and no more."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

from atomr_infer import actors
from atomr_infer.actors import Ref, ask, deployment_of
from atomr_infer.actors.decorators import _GpuActor, _InferenceActor

PAGE = (Path(__file__).parents[2] / "docs/reference/actors.md").read_text("utf-8")


def first_column(head: str) -> list[str]:
    table = PAGE.split(f"| {head} |", 1)[1].split("\n\n", 1)[0]
    return re.findall(r"^\| `(\w+)", table, re.MULTILINE)


def test_the_page_has_each_name_and_no_other() -> None:
    assert sorted(first_column("name")) == sorted(actors.__all__)


def test_the_page_has_what_decorators_take() -> None:
    for decorator, name in ((_InferenceActor, "inference"), (_GpuActor, "gpu")):
        said = [field.name for field in decorator.__attrs_attrs__]
        assert first_column(f"`@{name}_actor(...)`") == said


def test_the_page_has_the_methods_and_what_they_take() -> None:
    public = {name for name in vars(Ref) if not name.startswith("_")}

    # ``ask`` is asked for by the function of its name.
    assert {*first_column("method of `Ref`")} == public - {"name", "ask"}
    for function in (ask, deployment_of):
        taken = [*inspect.signature(function).parameters]
        [shown] = re.findall(rf"^## `{function.__name__}\((.*)\)`$", PAGE, re.MULTILINE)
        assert re.findall(r"\w+", re.sub(r"=\w+", "", shown)) == taken
