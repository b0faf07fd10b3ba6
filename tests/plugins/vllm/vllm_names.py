"""A vLLM that only has the names which are asked for before an engine is started."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pytest


class AsyncEngineArgs:
    """As vLLM's: keeps what it is given."""

    __dataclass_fields__: ClassVar[dict[str, object]] = {"hf_token": None}

    def __init__(self, **given: Any) -> None:
        self.given = given


def put_in_place(monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool) -> None:
    """Let ``import vllm`` find it.

    Args:
        monkeypatch: takes it away behind the test.
        on_cpu: what it says of the machine.
    """
    platform = SimpleNamespace(is_cpu=lambda: on_cpu)
    modules: dict[str, dict[str, object]] = {
        "vllm": {"AsyncEngineArgs": AsyncEngineArgs},
        "vllm.platforms": {"current_platform": platform},
    }
    for name, values in modules.items():
        module = ModuleType(name)
        vars(module).update(values)
        monkeypatch.setitem(sys.modules, name, module)
