"""Directories of onnxruntime-genai: ``genai_config.json``, in Optimum's words.

Its model builder writes::

    genai_config.json         file, names, sizes, end-of-text tokens, sampling
    model.onnx                a decoder with a key-value cache
    model.onnx.data           its weights
    tokenizer.json            the tokenizer
    tokenizer_config.json     special tokens, the chat template

The decoder is one like those of Optimum, whose inputs and outputs may have other
names; so it is run by the same engine, and the library itself is not needed.  What is
no such decoder is refused, with the reason.

Pure.

Source: ONNX Runtime generate() API, "Config reference".
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterable

Json = dict[str, Any]

FILE = "genai_config.json"

_ANEW = (
    "export the model anew, as one decoder: "
    "python -m onnxruntime_genai.models.builder -m NAME -o FOLDER -p int4 -e cpu"
)

_PARTS = {
    "encoder": "it has an encoder beside its decoder, and only decoders are run",
    "vision": "it reads pictures",
    "speech": "it reads sound",
    "embedding": "its decoder reads vectors of another graph, and no tokens",
}
"""What beside ``decoder`` makes a model another one."""

_INPUTS = {
    "input_ids": "input_ids",
    "attention_mask": "attention_mask",
    "position_ids": "position_ids",
    "past_key_names": "past_key_values.%d.key",
    "past_value_names": "past_key_values.%d.value",
}
"""Optimum's names, by genai's keys; they are its defaults, too."""

_OUTPUTS = {
    "logits": "logits",
    "present_key_names": "present.%d.key",
    "present_value_names": "present.%d.value",
}

_SIZES = {
    "max_position_embeddings": "context_length",
    "vocab_size": "vocab_size",
    "eos_token_id": "eos_token_id",
    "model_type": "type",
}
_HEADS = {
    "num_key_value_heads": "num_key_value_heads",
    "num_attention_heads": "num_attention_heads",
    "head_dim": "head_size",
    "hidden_size": "hidden_size",
}
"""Keys of ``config.json``, and where they are in ``model`` and its ``decoder``."""

_SAMPLING = ("temperature", "top_p", "top_k", "repetition_penalty")


@attrs.frozen
class Names:
    """How a graph calls what Optimum calls otherwise.

    Attributes:
        inputs: Optimum's name by the graph's; ``%d`` stands for a layer.
        outputs: the same of outputs.
    """

    inputs: Mapping[str, str]
    outputs: Mapping[str, str]

    def ours(self, inputs: Iterable[str], outputs: Iterable[str]) -> dict[str, str]:
        """Return the graph's names by Optimum's; those that none stands for as is."""
        named = {_renamed(name, self.inputs): name for name in inputs}
        return named | {_renamed(name, self.outputs): name for name in outputs}


def _renamed(name: str, names: Mapping[str, str]) -> str:
    for theirs, ours in names.items():
        found = re.fullmatch(re.escape(theirs).replace("%d", r"(\d+)"), name)
        if found is not None:
            return ours.replace("%d", "".join(found.groups()))
    return name


@attrs.frozen(kw_only=True)
class Genai:
    """What a directory's ``genai_config.json`` says.

    Attributes:
        file: the decoder's ``.onnx`` file.
        config: as ``config.json`` would say it.
        generation: as ``generation_config.json`` would say it.
        names: the graph's own names.
        providers: execution providers for which it was made; none: the CPU.
    """

    file: str
    config: Json
    generation: Json
    names: Names
    providers: tuple[str, ...]


def parse_genai(found: Json, path: str) -> Genai:
    """Return what a ``genai_config.json`` says.

    Raises:
        EngineStartError: the model is not one decoder that reads tokens, or the file
            is damaged; says why, and what to do.

    >>> parse_genai({"model": {"decoder": {"filename": "m.onnx"}}}, "x").file
    'm.onnx'
    """
    model = _table(found, "model", path)
    decoder = _table(model, "decoder", path)
    search = _table(found, "search", path)
    reason = _refused(model, decoder, search)
    if reason is not None:
        raise EngineStartError(f"{path!r}: {reason}")
    file = decoder.get("filename", "model.onnx")
    if not isinstance(file, str):
        raise EngineStartError(f"{path!r}: the decoder's filename is {file!r}")
    sizes = [(ours, model.get(theirs)) for ours, theirs in _SIZES.items()]
    sizes += [(ours, decoder.get(theirs)) for ours, theirs in _HEADS.items()]
    return Genai(
        file=file,
        config={name: value for name, value in sizes if value is not None},
        generation=_generation(search),
        names=Names(
            _names(_table(decoder, "inputs", path), _INPUTS),
            _names(_table(decoder, "outputs", path), _OUTPUTS),
        ),
        providers=_providers(_table(decoder, "session_options", path)),
    )


def _table(found: Json, name: str, path: str) -> Json:
    table = found.get(name, {})
    if isinstance(table, dict):
        return table
    raise EngineStartError(f"{path!r}: {name} is no table")


def _refused(model: Json, decoder: Json, search: Json) -> str | None:
    """Return why a model cannot be run, and what to do; None: it may be."""
    for part, reason in _PARTS.items():
        if part in model:
            return f"{reason}; export the model that writes text alone, or {_ANEW}"
    if decoder.get("pipeline"):
        count = len(decoder["pipeline"])
        return f"its decoder is cut into {count} graphs, as for an NPU; {_ANEW}"
    if "sliding_window" in decoder:
        return f"its decoder reads prompts through a window of fixed size; {_ANEW}"
    inputs = decoder.get("inputs")
    if isinstance(inputs, dict) and inputs.get("past_names"):
        return f"its cache has keys and values in one tensor; {_ANEW}"
    beams = search.get("num_beams", 1)
    if beams != 1:
        return f"search.num_beams is {beams}, and answers have one beam; set it to 1"
    return None


def _generation(search: Json) -> Json:
    # As the library does: without do_sample, the likeliest token is taken.
    if search.get("do_sample") is not True:
        return {"do_sample": False}
    said = {name: search[name] for name in _SAMPLING if name in search}
    # It writes 0 for what does not bound anything.
    return {"do_sample": True} | {name: v for name, v in said.items() if v != 0}


def _names(said: Json, ours: Mapping[str, str]) -> dict[str, str]:
    return {str(said.get(key, name)): name for key, name in ours.items()}


def _providers(session_options: Json) -> tuple[str, ...]:
    listed = session_options.get("provider_options") or ()
    return tuple(
        name.lower() for one in listed if isinstance(one, dict) for name in one
    )
