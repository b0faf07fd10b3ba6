"""What llama.cpp said of a failure, by a library that only has the names."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any
from unittest.mock import MagicMock

import pytest

from atomr_infer.errors import EngineCrashedError, EngineStartError
from atomr_infer_llamacpp.options import Pooling

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

PACKAGE = "atomr_infer_llamacpp"
WARN, CONTINUED = 3, 5


class Library:
    """What imports the library, with one that does as it is told."""

    def __init__(self, fake: MagicMock) -> None:
        self.fake = fake
        self.logs, self.model, self.texts = (
            import_module(f"{PACKAGE}.{name}") for name in ("logs", "model", "texts")
        )

    def say(self, text: bytes, level: int = WARN) -> None:
        """Log something, as the library does."""
        self.logs._log(level, text, None)

    def failing(self, returned: object) -> Callable[..., object]:
        """A function of its that says why it fails, in two pieces."""

        def fail(*_: object) -> object:
            self.say(b"no buffer ")
            self.say(b"of 9 MiB\n", CONTINUED)
            return returned

        return fail

    def context(self) -> Any:
        """A context for answers."""
        bounds = {"cache_tokens": 8, "batch_tokens": 8, "max_seqs": 1, "threads": 1}
        return self.model.LlamaContext(MagicMock(), **bounds)

    def vectors(self) -> Any:
        """A context for texts."""
        bounds = {"batch_tokens": 8, "threads": 1}
        model = MagicMock(vector_size=2)
        return self.texts.LlamaTexts(model, pooling=Pooling.MEAN, **bounds)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Iterator[Library]:
    fake = MagicMock(llama_log_callback=lambda function: function)
    monkeypatch.setitem(sys.modules, "llama_cpp", fake)
    before = _those_with_the_library()
    yield Library(fake)
    _those_with_the_library()
    sys.modules.update(before)


def _those_with_the_library() -> dict[str, ModuleType]:
    """Take the modules that know the library out, and return them."""
    names = [f"{PACKAGE}.{name}" for name in ("logs", "model", "texts")]
    return {name: sys.modules.pop(name) for name in names if name in sys.modules}


@pytest.mark.parametrize("stopped", [None, lambda: False], ids=["whole", "stoppable"])
def test_a_run_that_fails_says_what_was_said_of_it_and_nothing_older(
    library: Library, stopped: Callable[[], bool] | None
) -> None:
    context = library.context()
    library.say(b"an old line\n")
    library.fake.llama_decode = library.failing(-3)
    with pytest.raises(EngineCrashedError) as caught:
        context.run([], stopped)
    assert caught.value.message == (
        "llama_decode gave -3; it said last: no buffer of 9 MiB"
    )


def test_a_run_of_texts_says_what_was_said_of_it_and_nothing_older(
    library: Library,
) -> None:
    context = library.vectors()
    library.say(b"an old line\n")
    library.fake.llama_decode = library.failing(-3)
    with pytest.raises(EngineCrashedError) as caught:
        context.run([[1, 2]])
    assert caught.value.message.endswith("it said last: no buffer of 9 MiB")


@pytest.mark.parametrize("make", [Library.context, Library.vectors])
def test_a_context_that_is_not_made_says_what_was_said_of_it(
    library: Library, make: Callable[[Library], object]
) -> None:
    library.say(b"an old line\n")
    library.fake.llama_init_from_model = library.failing(None)
    with pytest.raises(EngineStartError) as caught:
        make(library)
    assert caught.value.message.endswith("; it said: no buffer of 9 MiB")
