"""What a deployment on vLLM may say."""

from __future__ import annotations

import pytest

from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment, OptionValue
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_vllm.options import (
    Options,
    Task,
    engine_arguments,
    parse_options,
    refuse_unknown_arguments,
)
from atomr_infer_vllm.plugin import PLUGIN


def deployment(model: str | None = "/m", /, **options: OptionValue) -> Deployment:
    return Deployment(
        name="v", runtime="vllm", model=model, serves=("v", "cats"), options=options
    )


def refused(found: Deployment) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_options(found)
    return str(caught.value)


def test_the_plugin_itself_conforms() -> None:
    check_plugin(PLUGIN, deployment(), heavy=("vllm", "torch", "transformers"))


def test_every_option_is_read() -> None:
    found = parse_options(
        deployment(
            None,
            weights="/m",
            task="generate",
            dtype="bfloat16",
            quantization="awq",
            context_tokens=1024,
            max_seqs=8,
            tensor_parallel=2,
            gpu_memory=0.5,
            cpu_cache_gib=1,
            prefix_caching=False,
            eager=True,
            lora={"cats": "/cats"},
            lora_rank=32,
            tool_parser="hermes",
            chat_template="/t.jinja",
            engine={"kv_cache_dtype": "fp8"},
        )
    )
    assert found == Options(
        weights="/m",
        dtype="bfloat16",
        quantization="awq",
        context_tokens=1024,
        max_seqs=8,
        tensor_parallel=2,
        gpu_memory=0.5,
        cpu_cache_gib=1,
        prefix_caching=False,
        eager=True,
        lora={"cats": "/cats"},
        lora_rank=32,
        tool_parser="hermes",
        chat_template="/t.jinja",
        engine={"kv_cache_dtype": "fp8"},
    )


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"max_seq": 3}, "vllm has no option 'max_seq'; did you mean 'max_seqs'?"),
        ({"max_model_len": 3}, "no option 'max_model_len'; write context_tokens"),
        ({"zzz": 3}, "arguments of vLLM's engine belong under engine"),
        ({"max_seqs": True}, "max_seqs is True; give a whole number from 1 to 65536"),
        ({"gpu_memory": 1.5}, "gpu_memory is 1.5; give a number above 0 and at most 1"),
        ({"dtype": "int3"}, "give one of 'auto', 'bfloat16', 'float16', 'float32'"),
        (
            {"task": "sing"},
            "give one of 'generate', 'embed', 'classify', 'rerank'",
        ),
        (
            {"task": "embed", "tool_parser": "hermes"},
            "tool_parser is for task = 'generate', and task is 'embed'; leave tool_par",
        ),
        (
            {"task": "classify", "chat_template": "/t"},
            "chat_template is for task = 'generate' or 'rerank', and task is 'clas",
        ),
        (
            {"task": "rerank", "prefix_caching": True},
            "prefix_caching is for task = 'generate', and task is 'rerank'",
        ),
        ({"eager": "yes"}, "eager is 'yes'; give true or false"),
        ({"lora": ["a"]}, "give a table with an adapter's directory for each name"),
        (
            {"engine": {"data_parallel_size": "two"}},
            "engine is {'data_parallel_size': 'two'}; for 'data_parallel_size', give "
            "a whole number from 1 to 65536",
        ),
        ({"engine": {"pipeline_parallel_size": 0}}, "for 'pipeline_parallel_size', "),
        (
            {"engine": {"max_num_seqs": 1}},
            "'max_num_seqs' has an option here: max_seqs",
        ),
        (
            {"engine": {"enable_logging_iteration_details": False}},
            "'enable_logging_iteration_details' cannot be set: by it is seen what",
        ),
        (
            {"engine": {"disable_log_stats": True}},
            "'disable_log_stats' cannot be set: by what it logs it is seen",
        ),
        ({"weights": "/other"}, "vllm needs a model"),
        ({"lora": {"cats": "/c"}}, "with model, every request is for that model"),
    ],
)
def test_a_mistake_is_refused_with_its_cure(
    options: dict[str, OptionValue], problem: str
) -> None:
    assert problem in refused(deployment(**options))


def test_a_model_must_be_named() -> None:
    assert "vllm needs a model" in refused(deployment(None))


def test_a_model_of_a_hub_may_have_a_revision_and_is_no_single_file() -> None:
    arguments = engine_arguments(Options(weights="hf:org/tiny@v1"), on_cpu=True)
    assert (arguments["model"], arguments["revision"]) == ("org/tiny", "v1")
    one_file = refused(deployment("hf:org/tiny/tiny.gguf"))
    assert "vllm reads whole models: hf:org/tiny" in one_file


def test_an_adapter_that_nobody_can_ask_for_is_refused() -> None:
    found = deployment(None, weights="/m", lora={"dogs": "/d"})
    assert "nobody can ask for the adapter 'dogs'; add it to serves" in refused(found)


def test_on_a_cpu_nothing_is_said_of_a_gpu() -> None:
    assert engine_arguments(Options(weights="/m"), on_cpu=True) == {
        "model": "/m",
        "runner": "generate",
        "dtype": "auto",
        "max_num_seqs": 64,
        "tensor_parallel_size": 1,
        "enforce_eager": True,
        "enable_prefix_caching": True,
    }


def test_options_become_the_arguments_of_the_engine() -> None:
    options = Options(
        weights="/m",
        task=Task.EMBED,
        quantization="awq",
        context_tokens=512,
        tensor_parallel=2,
        gpu_memory=0.5,
        engine={"swap_space": 1},
    )
    assert engine_arguments(options, on_cpu=False) == {
        "swap_space": 1,
        "model": "/m",
        "runner": "pooling",
        "dtype": "auto",
        "max_num_seqs": 64,
        "tensor_parallel_size": 2,
        "enforce_eager": False,
        "quantization": "awq",
        "max_model_len": 512,
        "gpu_memory_utilization": 0.5,
    }
    lora = Options(weights="/m", lora={"a": "/a", "b": "/b"}, lora_rank=8)
    adapted = engine_arguments(lora, on_cpu=True)
    assert adapted["enable_lora"] is True
    assert (adapted["max_loras"], adapted["max_lora_rank"]) == (2, 8)


@pytest.mark.parametrize("task", [Task.CLASSIFY, Task.RERANK])
def test_a_model_that_judges_is_one_that_pools_to_vllm(task: Task) -> None:
    arguments = engine_arguments(Options(weights="/m", task=task), on_cpu=True)
    assert arguments["runner"] == "pooling"
    assert "enable_prefix_caching" not in arguments


def test_an_argument_that_this_vllm_does_not_have_is_refused() -> None:
    options = Options(weights="/m", engine={"swap_spaec": 1})
    with pytest.raises(ConfigError) as caught:
        refuse_unknown_arguments("v", options, frozenset({"swap_space"}))
    assert str(caught.value) == (
        "deployment 'v': vLLM's engine has no argument 'swap_spaec'; did you mean "
        "'swap_space'?"
    )
