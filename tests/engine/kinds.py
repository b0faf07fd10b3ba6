"""What each local runtime is asked for, and the test that asks it.

The second table of ``docs/reference/engines.md``.  ``test_kinds`` holds it to the
truth: a test that is named is there, and what a runtime says that it can is what is
named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    from collections.abc import Mapping

RUNTIMES = ("vllm", "ort", "mistralrs", "llamacpp", "tensorrt", "python")

LORA = "LoRA adapters, chosen by the model's name"

ROWS: Mapping[Feature | str, str] = {
    Feature.CHAT: "chats",
    Feature.COMPLETIONS: "bare completions",
    Feature.LOGPROBS: "`logprobs`",
    Feature.JSON_OBJECT: "JSON mode",
    Feature.STRUCTURED_OUTPUT: "JSON Schema",
    Feature.TOOLS: "tools",
    Feature.EMBEDDINGS: "embeddings",
    Feature.RERANK: "ranking documents",
    Feature.CLASSIFY: "classifying texts",
    Feature.INFER: "tensors, as KServe and Triton are asked (`infer`)",
    LORA: LORA,
}

CONFORMANCE = "the conformance suite of runtimes"

_EVERY = "tests/engine/test_every_engine.py::"
_CHAT = f"{_EVERY}test_a_chat_is_the_same_streamed_and_whole"
_BARE = f"{_EVERY}test_bare_text_is_continued"
_LOGPROBS = f"{_EVERY}test_probabilities_come_or_are_refused"
_OBJECT = f"{_EVERY}test_json_mode_gives_an_object_or_is_refused"
_SCHEMA = f"{_EVERY}test_json_comes_as_the_schema_says_or_is_refused"
_TOOL = f"{_EVERY}test_a_tool_is_called_or_refused"
_VLLM = "tests/plugins/vllm/"
_ORT = "tests/plugins/ort/"
_LLAMA = "tests/plugins/llamacpp/"
_TRT = "tests/plugins/tensorrt/"
_OWN = "tests/plugins/python/test_python_runner.py::"
_OF_PLANS = f"{_TRT}test_models.py::"
_SAID = f"{_OF_PLANS}test_it_does_all_that_it_says_of_itself"

_WRITERS = ("vllm", "ort", "mistralrs", "llamacpp")

TESTED: Mapping[Feature | str, Mapping[str, str]] = {
    Feature.CHAT: {
        **dict.fromkeys(_WRITERS, _CHAT),
        "tensorrt": _SAID,
        "python": f"{_OWN}test_each_kind_of_function_answers",
    },
    Feature.COMPLETIONS: {
        **dict.fromkeys(("vllm", "ort", "llamacpp"), _BARE),
        "tensorrt": _SAID,
        "python": f"{_OWN}test_each_kind_of_function_answers",
    },
    Feature.LOGPROBS: {**dict.fromkeys(_WRITERS, _LOGPROBS), "tensorrt": _SAID},
    Feature.JSON_OBJECT: {**dict.fromkeys(_WRITERS, _OBJECT), "tensorrt": _SAID},
    Feature.STRUCTURED_OUTPUT: {
        **dict.fromkeys(_WRITERS, _SCHEMA),
        "tensorrt": (
            f"{_OF_PLANS}"
            "test_an_answer_is_kept_to_its_schema_and_a_required_call_is_made"
        ),
    },
    Feature.TOOLS: {
        **dict.fromkeys(_WRITERS, _TOOL),
        "tensorrt": (
            f"{_OF_PLANS}"
            "test_an_answer_is_kept_to_its_schema_and_a_required_call_is_made"
        ),
    },
    Feature.EMBEDDINGS: {
        "vllm": (
            f"{_VLLM}test_vllm_embeddings.py::test_vectors_are_those_of_another_engine"
        ),
        "ort": (
            f"{_ORT}test_embedding.py::test_vectors_are_the_reference_s_in_one_batch"
        ),
        "llamacpp": (
            f"{_LLAMA}test_llamacpp_texts.py::"
            "test_vectors_are_the_reference_s_whatever_they_are_batched_with"
        ),
        "tensorrt": f"{_OF_PLANS}test_vectors_are_the_reference_s",
        "python": (f"{_OWN}test_a_class_is_made_loaded_asked_and_closed_in_one_thread"),
    },
    Feature.RERANK: {
        "vllm": f"{_VLLM}test_vllm_judges.py::test_documents_are_ranked",
        "ort": f"{_ORT}test_ranking.py::test_the_numbers_are_those_of_the_reference",
        "tensorrt": f"{_OF_PLANS}test_pairs_are_ranked_as_on_onnx_runtime",
    },
    Feature.CLASSIFY: {
        "vllm": f"{_VLLM}test_vllm_judges.py::test_texts_are_classified",
        "ort": (
            f"{_ORT}test_classifying.py::"
            "test_a_text_has_one_label_unless_its_model_says_otherwise"
        ),
        "tensorrt": f"{_OF_PLANS}test_texts_are_classified_as_on_onnx_runtime",
    },
    Feature.INFER: {
        "ort": f"{_ORT}test_tensors.py::test_what_comes_out_is_what_numpy_makes",
        "tensorrt": f"{_TRT}test_tensors.py::test_tensors_are_computed",
    },
    LORA: {
        "vllm": (
            f"{_VLLM}test_vllm_engine.py::test_an_adapter_is_chosen_by_the_models_name"
        ),
    },
    CONFORMANCE: {
        "vllm": f"{_VLLM}test_vllm_engine.py::test_conformance",
        "ort": f"{_ORT}test_conformance.py::test_conformance",
        "mistralrs": "tests/plugins/mistralrs/test_directory.py::test_conformance",
        "llamacpp": f"{_LLAMA}test_llamacpp_engine.py::test_conformance",
        "tensorrt": f"{_TRT}test_conformance.py::test_conformance",
        "python": f"{_OWN}test_conformance",
    },
}
"""By what is asked for: which test asks each runtime for it; without one, it is not
offered."""

WHERE: Mapping[str, str] = {
    "vllm": "CPU",
    "ort": "CPU",
    "mistralrs": "CPU",
    "llamacpp": "CPU",
    "tensorrt": "a device in the machine's memory, that ONNX Runtime computes for",
    "python": "CPU, with code of the tests' own",
}


def table() -> str:
    """Return the table: each ``yes`` leads to its test."""
    rows = [
        ["", *(f"`{name}`" for name in RUNTIMES)],
        ["---"] * (1 + len(RUNTIMES)),
        *(
            [said, *(_cell(what, name) for name in RUNTIMES)]
            for what, said in {**ROWS, CONFORMANCE: CONFORMANCE}.items()
        ),
        ["tested on", *(WHERE[name] for name in RUNTIMES)],
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _cell(what: Feature | str, runtime: str) -> str:
    test = TESTED[what].get(runtime)
    return "no" if test is None else f"[yes](../../{test.partition('::')[0]})"
