"""A vLLM, and a library of the hub, as far as is asked before an engine is started."""

from __future__ import annotations

import sys
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    import pytest


class AsyncEngineArgs:
    """As vLLM's: keeps what it is given."""

    __dataclass_fields__: ClassVar[dict[str, object]] = {
        "hf_token": None,
        "worker_extension_cls": "",
    }

    def __init__(self, **given: Any) -> None:
        self.given = given


class Hub(ModuleType):
    """As ``huggingface_hub``: says what it was given of a model, and what is kept.

    Attributes:
        told: what the hub says; an error: it is raised.
        kept: the model's folder in the cache.
        asked: what was asked for.
    """

    def __init__(self) -> None:
        super().__init__("huggingface_hub")
        self.told: SimpleNamespace | Exception = ConnectionError("no network")
        self.kept: str | None = None
        self.asked: list[tuple[object, ...]] = []

    def HfApi(self) -> Hub:  # noqa: N802 - its name
        return self

    def model_info(
        self, repo: str, *, revision: str | None, files_metadata: bool, timeout: float
    ) -> SimpleNamespace:
        self.asked.append((repo, revision))
        if isinstance(self.told, Exception):
            raise self.told
        return self.told

    def snapshot_download(
        self,
        repo: str,
        *,
        revision: str | None,
        cache_dir: str | None,
        local_files_only: bool,
    ) -> str:
        assert local_files_only
        self.asked.append((repo, revision, cache_dir))
        if self.kept is None:
            raise FileNotFoundError("LocalEntryNotFoundError")
        return self.kept


def put_in_place(monkeypatch: pytest.MonkeyPatch, *, on_cpu: bool) -> Hub:
    """Let ``import vllm`` find it, and ``import huggingface_hub``; return the hub.

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
    hub = Hub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    return hub
