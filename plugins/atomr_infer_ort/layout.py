"""A model's directory: which file is what, and what its settings say.

The layout is the one that ``optimum-cli export onnx`` writes::

    model.onnx                a model with a key-value cache, or an encoder
    model.onnx_data           its weights, when they are kept beside it
    config.json               sizes, the end-of-text token
    generation_config.json    the sampling that its makers advise
    tokenizer.json            the tokenizer
    tokenizer_config.json     special tokens, the chat template
    chat_template.jinja       the chat template, in newer exports
    1_Pooling/config.json     an embedding model: how tokens become one vector
    modules.json              ... and whether vectors are normalized

The ``.onnx`` file may be in a folder ``onnx``.  A directory of onnxruntime-genai has
one file in place of the settings (:mod:`~atomr_infer_ort.genai`).  All functions block.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attrs

from atomr_infer.errors import ConfigError, EngineStartError
from atomr_infer.runtimes.files import expanded
from atomr_infer.runtimes.hub.exports import USUAL_NAMES, usual_export
from atomr_infer_ort.genai import FILE as GENAI
from atomr_infer_ort.genai import Genai, Names, parse_genai

_WORDS = ("config.json", "tokenizer.json")

Json = dict[str, Any]


@attrs.frozen(kw_only=True)
class Layout:
    """What a model's directory holds.

    Attributes:
        folder: the directory.
        model: the ``.onnx`` file.
        weights_bytes: size of the file and of the weights beside it.
        tokenizer: ``tokenizer.json``.
        config: ``config.json``.
        generation: ``generation_config.json``; empty when there is none.
        tokenizer_config: ``tokenizer_config.json``; empty when there is none.
        chat_template: the template's text; None: it has none.
        pooling: ``1_Pooling/config.json``; empty when there is none.
        normalizes: whether ``modules.json`` lists a normalizing layer.
        max_seq_length: longest text that ``sentence_bert_config.json`` allows.
        names: how the graph calls its inputs and outputs; None: as Optimum does.
        made_for: execution providers for which it was exported; none: any.
    """

    folder: Path
    model: Path
    weights_bytes: int
    tokenizer: Path
    config: Json
    generation: Json
    tokenizer_config: Json
    chat_template: str | None
    pooling: Json
    normalizes: bool
    max_seq_length: int | None
    names: Names | None = None
    made_for: tuple[str, ...] = ()


def read_layout(source: str, file: str | None = None) -> Layout:
    """Return what is in a model's directory.

    Args:
        source: the directory.
        file: the ``.onnx`` file inside it; None: the usual names are tried, and one
            alone is taken whatever it is called.

    Raises:
        ConfigError: a file is missing; says which, and what is there.
        EngineStartError: a settings file is no JSON object, or the model is one that
            is not run.
    """
    folder = _folder(source)
    genai = _genai(folder)
    if file is None and genai is not None:
        file = genai.file
    model = _model_file(folder, file)
    for needed in _WORDS[1:] if genai else _WORDS:
        if not (folder / needed).is_file():
            raise ConfigError(_missing(folder, needed, genai))
    tokenizer_config = _json(folder / "tokenizer_config.json")
    length = _json(folder / "sentence_bert_config.json").get("max_seq_length")
    return Layout(
        folder=folder,
        model=model,
        weights_bytes=weights_bytes(model),
        tokenizer=folder / "tokenizer.json",
        config=_json(folder / "config.json") | (genai.config if genai else {}),
        generation=genai.generation
        if genai
        else _json(folder / "generation_config.json"),
        tokenizer_config=tokenizer_config,
        chat_template=_chat_template(folder, tokenizer_config),
        pooling=_json(folder / "1_Pooling" / "config.json"),
        normalizes=_normalizes(folder / "modules.json"),
        max_seq_length=length if isinstance(length, int) else None,
        names=genai.names if genai else None,
        made_for=genai.providers if genai else (),
    )


def _genai(folder: Path) -> Genai | None:
    path = folder / GENAI
    return parse_genai(_json(path), str(path)) if path.is_file() else None


def _missing(folder: Path, needed: str, genai: Genai | None) -> str:
    remedy = (
        "write it with transformers: AutoTokenizer.from_pretrained(NAME)"
        ".save_pretrained(FOLDER)"
        if genai
        else "export the model with: optimum-cli export onnx --model NAME FOLDER"
    )
    return f"{str(folder)!r} has no {needed}; {remedy}"


def model_file(source: str, file: str | None = None) -> Path:
    """Return the ``.onnx`` file of a model's directory, whatever else is there.

    Raises:
        ConfigError: there is none.
    """
    return _model_file(_folder(source), file)


def has_words(source: str) -> bool:
    """Whether a model's directory says anything of texts: a tokenizer, sizes."""
    return any((_folder(source) / needed).is_file() for needed in (*_WORDS, GENAI))


def _folder(source: str) -> Path:
    folder = expanded(source)
    if not folder.is_dir():
        raise ConfigError(f"there is no model directory {str(folder)!r}")
    return folder


def _model_file(folder: Path, file: str | None) -> Path:
    if file is not None:
        found = folder / file
        if not found.is_file():
            instead = _instead(_exports(folder))
            raise ConfigError(f"there is no file {str(found)!r}{instead}")
        return found
    there = _exports(folder)
    usual = there[0] if len(there) == 1 else usual_export(there)
    if usual is not None:
        return folder / usual
    raise ConfigError(
        f"{str(folder)!r} holds no {' or '.join(USUAL_NAMES)}{_instead(there)}"
    )


def _exports(folder: Path) -> list[str]:
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.glob("**/*.onnx")
    )


def _instead(exports: list[str]) -> str:
    return f"; name one with file = ...: {', '.join(exports)}" if exports else ""


def weights_files(model: Path) -> list[Path]:
    """Return a model's file, and those beside it that bear its name."""
    beside = (f"{model.name}_data", f"{model.name}.data")
    found = (path for path in model.parent.iterdir() if path.name.startswith(beside))
    return [model, *sorted(found)]


def weights_bytes(model: Path) -> int:
    """Return the size of a model, and of the files beside it that bear its name."""
    return sum(path.stat().st_size for path in weights_files(model))


def _json(path: Path) -> Json:
    if not path.is_file():
        return {}
    value = _read(path)
    if not isinstance(value, dict):
        raise EngineStartError(f"{str(path)!r} is not a JSON object")
    return value


def _read(path: Path) -> object:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise EngineStartError(f"{str(path)!r} cannot be read: {error}") from error


def _normalizes(modules: Path) -> bool:
    if not modules.is_file():
        return False
    listed = _read(modules)
    return isinstance(listed, list) and any(
        str(module.get("type", "")).endswith("Normalize")
        for module in listed
        if isinstance(module, dict)
    )


def _chat_template(folder: Path, tokenizer_config: Json) -> str | None:
    apart = folder / "chat_template.jinja"
    if apart.is_file():
        return apart.read_text(encoding="utf-8")
    found = tokenizer_config.get("chat_template")
    if isinstance(found, list):  # several, each with a name
        named = {one.get("name"): one.get("template") for one in found}
        found = named.get("default")
    return found if isinstance(found, str) else None
