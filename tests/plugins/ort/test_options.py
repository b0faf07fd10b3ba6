"""What a deployment may say, and what it is told when it says something else."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer_ort.options import (
    DEFAULT_BATCH_TOKENS,
    DEFAULT_MAX_SEQS,
    DEFAULT_PREFILL_TOKENS,
    Normalize,
    Options,
    Pooling,
    parse_options,
)


def deployment(model: str | None = "/m", **options: OptionValue) -> Deployment:
    return Deployment(name="d", runtime="ort", model=model, options=options)


def test_a_model_is_enough() -> None:
    assert parse_options(deployment()) == Options(
        source="/m",
        file=None,
        providers=("cpu",),
        provider_options={},
        threads=None,
        max_seqs=DEFAULT_MAX_SEQS,
        prefill_tokens=DEFAULT_PREFILL_TOKENS,
        cache_tokens=None,
        context_tokens=None,
        pooling=Pooling.AUTO,
        normalize=Normalize.AUTO,
        batch_tokens=DEFAULT_BATCH_TOKENS,
    )


def test_options_are_taken() -> None:
    options = parse_options(
        deployment(
            file="onnx/model_int8.onnx",
            providers=["cuda", "cpu"],
            provider_options={"cuda": {"device_id": "1"}},
            threads=2,
            max_seqs=16,
            prefill_tokens=512,
            cache_tokens=10_000,
            context_tokens=2048,
            pooling="cls",
            normalize="no",
            batch_tokens=100,
        )
    )
    assert options == Options(
        source="/m",
        file="onnx/model_int8.onnx",
        providers=("cuda", "cpu"),
        provider_options={"cuda": {"device_id": "1"}},
        threads=2,
        max_seqs=16,
        prefill_tokens=512,
        cache_tokens=10_000,
        context_tokens=2048,
        pooling=Pooling.CLS,
        normalize=Normalize.NO,
        batch_tokens=100,
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            deployment(None),
            "ort needs a model: the path of a directory with an .onnx file, "
            "config.json and tokenizer.json, or hf:ORGANISATION/NAME",
        ),
        (
            deployment(thread=2),
            "ort has no option 'thread'; did you mean 'threads'?",
        ),
        (
            deployment(file="model.gguf"),
            "file is 'model.gguf'; give an .onnx file's path inside the model's "
            "directory",
        ),
        (
            deployment(providers=["gpu"]),
            "providers is ['gpu']; there is no provider 'gpu'; did you mean 'cuda'?",
        ),
        (
            deployment(providers=["tpu7"]),
            "providers is ['tpu7']; there is no provider 'tpu7'; known: cpu, cuda, "
            "tensorrt, rocm, migraphx, openvino, coreml, directml",
        ),
        (
            deployment(providers=["CUDA"]),
            "providers is ['CUDA']; there is no provider 'CUDA'; did you mean 'cuda'?",
        ),
        (
            deployment(providers="cpu"),
            'providers is \'cpu\'; give an array of names, such as ["cuda", "cpu"]',
        ),
        (
            deployment(providers=["cpu", "cpu"]),
            "providers is ['cpu', 'cpu']; name each provider once",
        ),
        (
            deployment(provider_options={"cuda": {"device_id": "0"}}),
            "provider_options are given for 'cuda', which is not in providers: cpu",
        ),
        (
            deployment(provider_options={"cpu": {"a": 1}}),
            "provider_options is {'cpu': {'a': 1}}; 'cpu' must be a table of strings",
        ),
        (
            deployment(pooling="max"),
            "pooling is 'max'; give one of 'auto', 'mean', 'cls', 'last'",
        ),
        *(
            (
                deployment(max_seqs=value),
                f"max_seqs is {value!r}; give a whole number from 1 to 1024",
            )
            for value in (0, 1025, True, "4", 1.5)
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(wrong: Deployment, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(wrong)
    assert str(caught.value) == f"deployment 'd': {message}"


def test_an_export_that_a_hub_s_name_ends_with_is_the_file() -> None:
    named = Deployment(
        name="d",
        runtime="ort",
        model="hf:org/tiny@v1/onnx/model_q4.onnx",
        options={"draft": "hf:org/nano/model.onnx"},
    )
    found = parse_options(named)
    assert (found.source, found.file) == ("hf:org/tiny@v1", "onnx/model_q4.onnx")
    assert (found.draft, found.draft_file) == ("hf:org/nano", "model.onnx")
    other = attrs.evolve(named, options={"file": "model.onnx"})
    with pytest.raises(ConfigError, match=r"file is .model\.onnx., and the name ends"):
        parse_options(other)
