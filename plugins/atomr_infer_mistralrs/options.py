"""What a deployment on mistral.rs may say, parsed and checked.

Pure: whether a file is there is ``models``' question.
"""

from __future__ import annotations

import difflib
from enum import Enum
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.by_model import Form, form_of_hub
from atomr_infer.runtimes.hub.names import PREFIX as HUB_PREFIX
from atomr_infer.runtimes.hub.names import HubModel, parse_hub_model
from atomr_infer.runtimes.packaged import PREFIX as PACKAGE_PREFIX
from atomr_infer.runtimes.packaged import PackagedFile, parse_packaged

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment, OptionValue

DEFAULT_MAX_SEQS = 4
"""Generations that run at once.

Measured with SmolLM2-135M Q8_0 on two busy cores, 64 tokens each, prompts one
after the other (``runner``): 1, 2 and 4 at once gave 47-71, 48-61 and 57-59
tokens per second in all, without an error.  So running more at once costs no
throughput, and the fourth client sees its first token after 1.5 s, not 4."""

MAX_MAX_SEQS = 256
"""More sequences than any device that mistral.rs runs on holds."""


class Quantization(Enum):
    """What becomes of the weights before they are loaded.

    Those of GGUF, which mistral.rs 0.9.5 makes of a directory's weights on a CPU in
    seconds, and which chat after it.  Of its others, HQQ takes minutes for a model of
    135M and AFQ and FP8 more memory than Q8_0 there, and AFQ2, AFQ3 and MXFP4 leave
    nothing of it.
    """

    NONE = "none"
    Q2K = "Q2K"
    Q3K = "Q3K"
    Q4_0 = "Q4_0"
    Q4_1 = "Q4_1"
    Q4K = "Q4K"
    Q5_0 = "Q5_0"
    Q5_1 = "Q5_1"
    Q5K = "Q5K"
    Q6K = "Q6K"
    Q8_0 = "Q8_0"


BYTES_PER_WEIGHT = {
    Quantization.Q2K: 84 / 256,
    Quantization.Q3K: 110 / 256,
    Quantization.Q4_0: 18 / 32,
    Quantization.Q4_1: 20 / 32,
    Quantization.Q4K: 144 / 256,
    Quantization.Q5_0: 22 / 32,
    Quantization.Q5_1: 24 / 32,
    Quantization.Q5K: 176 / 256,
    Quantization.Q6K: 210 / 256,
    Quantization.Q8_0: 34 / 32,
}
"""Of a matrix, its scales among it: a block's bytes and its weights."""

_OF_A_GGUF = (Quantization.NONE, Quantization.Q8_0)


@attrs.frozen
class GgufFile:
    """A ``.gguf`` file by its path."""

    path: str


@attrs.frozen
class HfDirectory:
    """A directory in Hugging Face's layout: safetensors, ``config.json``, ..."""

    path: str


LocalSource = GgufFile | HfDirectory | PackagedFile
Source = LocalSource | HubModel


@attrs.frozen(kw_only=True)
class Options:
    """A deployment's model and options.

    Attributes:
        source: where the weights are.
        quantization: a directory's weights are quantized so while they are loaded,
            as ``Q4K`` or another of these.  Of a GGUF file there are ``none`` and
            ``Q8_0``, which is fast on a CPU (mistral.rs 0.9.5 runs Q4_1 at a tenth of
            its speed).
        max_seqs: generations that run at once.
    """

    source: Source
    quantization: Quantization = Quantization.NONE
    max_seqs: int = DEFAULT_MAX_SEQS


def parse_options(deployment: Deployment) -> Options:
    """Return what the deployment asks for.

    Raises:
        ConfigError: the model is missing or is no source, an option is unknown
            (with the nearest name) or has a value that is not allowed.
    """
    options = Options(source=_source(deployment))
    for name, value in deployment.options.items():
        match name:
            case "quantization":
                quantization = _quantization(deployment.name, value)
                options = attrs.evolve(options, quantization=quantization)
            case "max_seqs":
                options = attrs.evolve(
                    options, max_seqs=_max_seqs(deployment.name, value)
                )
            case _:
                raise ConfigError(_unknown_option(deployment.name, name))
    if _is_gguf(options.source) and options.quantization not in _OF_A_GGUF:
        raise ConfigError(
            f"deployment {deployment.name!r}: quantization is "
            f"{options.quantization.value!r}, and the model is a GGUF file, which is "
            "quantized already; give 'none' or 'Q8_0', or a file of that quantization"
        )
    return options


def _is_gguf(source: Source) -> bool:
    if isinstance(source, HubModel):
        return form_of_hub(source) is Form.GGUF
    return not isinstance(source, HfDirectory)


def _unknown_option(deployment: str, name: str) -> str:
    known = ["quantization", "max_seqs"]
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
    return f"deployment {deployment!r}: mistralrs has no option {name!r}; {hint}"


def _quantization(deployment: str, value: OptionValue) -> Quantization:
    for member in Quantization:
        if isinstance(value, str) and value.lower() == member.value.lower():
            return member
    allowed = ", ".join(repr(member.value) for member in Quantization)
    raise ConfigError(
        f"deployment {deployment!r}: quantization is {value!r}; give one of {allowed}"
    )


def _max_seqs(deployment: str, value: OptionValue) -> int:
    # A bool is an int to Python, and no number to a person.
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and 1 <= value <= MAX_MAX_SEQS
    ):
        return value
    raise ConfigError(
        f"deployment {deployment!r}: max_seqs is {value!r}; give a whole number from "
        f"1 to {MAX_MAX_SEQS}"
    )


def _source(deployment: Deployment) -> Source:
    model = deployment.model
    if model is None:
        raise ConfigError(
            f"deployment {deployment.name!r}: mistralrs needs a model: the path of a "
            ".gguf file or of a Hugging Face directory, package:NAME/FILE.gguf, or "
            "hf:ORGANISATION/NAME"
        )
    if model.startswith(PACKAGE_PREFIX):
        return _packaged(deployment.name, model)
    if model.startswith(HUB_PREFIX):
        return _of_hub(deployment.name, model)
    if model.lower().endswith(".gguf"):
        return GgufFile(model)
    return HfDirectory(model)


def _packaged(deployment: str, model: str) -> PackagedFile:
    try:
        return parse_packaged(model)
    except ConfigError as error:
        raise ConfigError(f"deployment {deployment!r}: {error}") from error


def _of_hub(deployment: str, model: str) -> HubModel:
    try:
        return parse_hub_model(model)
    except ConfigError as error:
        raise ConfigError(f"deployment {deployment!r}: {error}") from error
