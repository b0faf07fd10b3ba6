"""What a deployment on llama.cpp may say, parsed and checked.

Pure: whether a file is there is ``loading``'s question.
"""

from __future__ import annotations

import difflib
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.hub.names import PREFIX as HUB_PREFIX
from atomr_infer.runtimes.hub.names import HubModel, parse_hub_model
from atomr_infer.runtimes.packaged import PREFIX as PACKAGE_PREFIX
from atomr_infer.runtimes.packaged import PackagedFile, parse_packaged

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import Deployment, OptionValue

DEFAULT_MAX_SEQS = 8
"""Sequences that are decoded in one step; on two cores, eight give about half as many
tokens again as one, and each has its own pace."""

MAX_MAX_SEQS = 256
"""More sequences than the library's own bound cannot be told apart."""

DEFAULT_PREFILL_TOKENS = 128
"""Those beside a prompt wait for its piece: 128 tokens of a small model take a fifth
of a second on two cores."""

DEFAULT_TEXT_TOKENS = 2048
"""A text is read in one run, whose memory the library reserves when it loads: a number
for each token and each word that the model knows.  Of 8192 tokens, that is 1.7 GB for
a model with 49,000 words and 135 million weights, and of 2048 it is 0.4 GB."""


class Pooling(Enum):
    """How a text's vector is made of its tokens' vectors."""

    AUTO = "auto"
    MEAN = "mean"
    CLS = "cls"
    LAST = "last"


_OTHER_ENDINGS = (".safetensors", ".onnx", ".bin")
"""Of files that are no GGUF; another name may be a folder's."""

Source = Path | PackagedFile | HubModel
"""Where the weights are."""


@attrs.frozen(kw_only=True)
class Options:
    """A deployment's model and options.

    Attributes:
        source: a ``.gguf`` file, or a part of a split one, which stands for all; or
            a hub's model or folder, of whose files one is taken.
        gpu_layers: layers that are kept on a GPU; left out: all of them where the
            build has one, else none.
        threads: processor threads of one step; left out: one for each core.
        max_seqs: sequences that are decoded together in one step.
        prefill_tokens: tokens of a prompt that are read in one step, beside the
            sequences that are decoded.
        cache_tokens: tokens that the key-value cache holds, of all sequences; left
            out: what they may need, up to a quarter of the free memory.  A request
            waits until its prompt and ``max_tokens`` fit.
        context_tokens: bounds prompt and answer of one request, or a text to embed;
            left out: the model's own bound, but of a text, whose run's memory is
            reserved, no more than 2048 or ``batch_tokens``.
        prefix_caching: whether prompts that begin alike are read once, in whole
            pieces of ``prefill_tokens``; a sequence that ended is kept for it while
            the cache has room.
        pooling: how the model makes vectors of texts; ``auto``: it does where its
            file says so, and as it says.
        batch_tokens: tokens of texts that are embedded in one step; left out, or
            fewer than that: as many as one text may have.
    """

    source: Source
    gpu_layers: int | None = None
    threads: int | None = None
    max_seqs: int = DEFAULT_MAX_SEQS
    prefill_tokens: int = DEFAULT_PREFILL_TOKENS
    cache_tokens: int | None = None
    context_tokens: int | None = None
    prefix_caching: bool = True
    pooling: Pooling = Pooling.AUTO
    batch_tokens: int | None = None


_RANGES: Mapping[str, tuple[int, int]] = {
    "gpu_layers": (0, 100_000),
    "threads": (1, 1024),
    "max_seqs": (1, MAX_MAX_SEQS),
    "prefill_tokens": (1, 1_000_000),
    "cache_tokens": (1, 1_000_000_000),
    "context_tokens": (1, 100_000_000),
    "batch_tokens": (1, 10_000_000),
}

_FLAGS = ("prefix_caching",)


def parse_options(deployment: Deployment) -> Options:
    """Return what the deployment asks for.

    Raises:
        ConfigError: the model is missing or is no GGUF, an option is unknown (with
            the nearest name) or has a value that is not allowed.
    """
    taken: dict[str, Any] = {
        name: _value(deployment.name, name, value)
        for name, value in deployment.options.items()
    }
    return Options(source=_source(deployment), **taken)


def _source(deployment: Deployment) -> Source:
    model = deployment.model
    try:
        if model is not None and model.startswith(PACKAGE_PREFIX):
            return parse_packaged(model)
        if model is not None and model.startswith(HUB_PREFIX):
            return _of_hub(model)
    except ConfigError as error:
        raise ConfigError(f"deployment {deployment.name!r}: {error}") from error
    if model is not None and model.lower().endswith(".gguf"):
        return Path(model)
    said = "" if model is None else f", and model is {model!r}"
    raise ConfigError(
        f"deployment {deployment.name!r}: llamacpp needs the path of a .gguf file, "
        "hf:ORGANISATION/NAME, with /FILE.gguf behind it where there are several, or "
        f"package:NAME/FILE.gguf as its model{said}"
    )


def _of_hub(model: str) -> HubModel:
    found = parse_hub_model(model)
    if found.file is not None and found.file.lower().endswith(_OTHER_ENDINGS):
        raise ConfigError(f"model is {model!r}; name a .gguf file of it")
    return found


def _value(deployment: str, name: str, value: OptionValue) -> int | bool | Pooling:
    if name == "pooling":
        return _pooling(deployment, value)
    if name in _FLAGS:
        if isinstance(value, bool):
            return value
        raise ConfigError(
            f"deployment {deployment!r}: {name} is {value!r}; give true or false"
        )
    if name not in _RANGES:
        known = (*_RANGES, *_FLAGS, "pooling")
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise ConfigError(
            f"deployment {deployment!r}: llamacpp has no option {name!r}; {hint}"
        )
    least, most = _RANGES[name]
    # A bool is an int to Python, and no number to a person.
    if type(value) is int and least <= value <= most:
        return value
    raise ConfigError(
        f"deployment {deployment!r}: {name} is {value!r}; give a whole number from "
        f"{least} to {most}"
    )


def _pooling(deployment: str, value: OptionValue) -> Pooling:
    for member in Pooling:
        if value == member.value:
            return member
    allowed = ", ".join(repr(member.value) for member in Pooling)
    raise ConfigError(
        f"deployment {deployment!r}: pooling is {value!r}; give one of {allowed}"
    )
