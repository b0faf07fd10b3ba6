"""Routing of model names."""

import pytest

from atomr_infer.errors import ConfigError, ModelNotFoundError
from atomr_infer.model.deployment import Deployment
from atomr_infer.policy.routing.model_table import ModelTable, Route


def deployment(name: str, *serves: str, model: str | None = None) -> Deployment:
    return Deployment(name=name, runtime="mock", serves=serves, model=model)


def table(*deployments: Deployment) -> ModelTable:
    found = ModelTable()
    for each in deployments:
        found = found.with_deployment(each)
    return found


def test_an_exact_name_wins_over_a_pattern_that_came_first() -> None:
    models = table(
        deployment("all", "gpt-*"), deployment("mine", "gpt-5", model="local.gguf")
    )
    assert models.resolve("gpt-5") == Route("mine", "local.gguf")
    assert models.resolve("gpt-6") == Route("all", "gpt-6")


def test_the_longest_pattern_wins() -> None:
    models = table(deployment("any", "*"), deployment("gpt", "gpt-*"))
    assert models.resolve("gpt-5").deployment == "gpt"
    assert models.resolve("claude").deployment == "any"


def test_a_provider_prefix_is_taken_off() -> None:
    models = table(deployment("openai", "openai/*"))
    assert models.resolve("openai/org/m:1") == Route("openai", "org/m:1")


def test_an_unknown_model_names_what_was_probably_meant() -> None:
    models = table(deployment("smollm2-135m"), deployment("other"))
    with pytest.raises(ModelNotFoundError, match="did you mean 'smollm2-135m'") as hit:
        models.resolve("smolm2-135m")
    assert hit.value.param == "model"


def test_an_unknown_model_lists_what_is_served() -> None:
    with pytest.raises(ModelNotFoundError, match="served are 'a', 'b'"):
        table(deployment("a"), deployment("b")).resolve("completely-else")
    with pytest.raises(ModelNotFoundError, match="nothing is deployed"):
        ModelTable().resolve("a")


def test_a_deployments_name_is_said_to_be_one() -> None:
    models = table(deployment("a", "chat", "chat-*"), deployment("b", "chats"))

    with pytest.raises(ModelNotFoundError) as hit:
        models.resolve("a")

    assert hit.value.message == (
        "the model 'a' does not exist; served are 'chat', 'chat-*', 'chats'; "
        "'a' is a deployment that serves 'chat', 'chat-*'"
    )


def test_a_deployments_name_that_is_nearly_a_public_one_is_said_to_be_one() -> None:
    with pytest.raises(ModelNotFoundError) as hit:
        table(deployment("chat-1", "chat")).resolve("chat-1")

    assert hit.value.message == (
        "the model 'chat-1' does not exist; served are 'chat'; "
        "'chat-1' is a deployment that serves 'chat'"
    )


def test_names_are_unique() -> None:
    models = table(deployment("a", "x"))
    with pytest.raises(ConfigError, match="deployment 'a' exists already"):
        models.with_deployment(deployment("a", "y"))


def test_deployments_of_one_name_are_a_group() -> None:
    models = table(
        deployment("a", "x", "gpt-*", model="one"),
        deployment("b", "y"),
        deployment("c", "x", "gpt-*"),
    )
    assert models.names() == ("x", "gpt-*", "y")
    assert models.resolve("x") == Route("a", "one", (Route("c", "x"),))
    assert models.resolve("gpt-5") == Route("a", "one", (Route("c", "gpt-5"),))
    assert models.resolve("y").group == (Route("b", "y"),)
    assert models.without("a").resolve("x") == Route("c", "x")


def test_who_serves_the_exact_name_is_in_no_group_with_a_pattern() -> None:
    models = table(deployment("all", "gpt-*"), deployment("mine", "gpt-5"))
    assert models.resolve("gpt-5").others == ()


def test_a_removed_deployment_is_gone_and_the_old_table_stays() -> None:
    before = table(deployment("a"), deployment("b"))
    after = before.without("a")
    assert after.names() == ("b",)
    assert before.names() == ("a", "b")


def falls_back(name: str, *fallbacks: str) -> Deployment:
    return Deployment(name=name, runtime="mock", fallbacks=fallbacks)


def test_a_fallback_that_is_not_there_names_what_was_probably_meant() -> None:
    models = table(deployment("backup"))
    with pytest.raises(ConfigError, match="no such; did you mean 'backup'"):
        models.with_deployment(falls_back("a", "bakcup"))
    with pytest.raises(ConfigError, match="no such; deploy that one first"):
        models.with_deployment(falls_back("a", "else"))


def test_a_fallback_may_come_later_when_it_is_expected() -> None:
    models = ModelTable().with_deployment(
        falls_back("a", "b"), expected=frozenset({"b"})
    )
    with pytest.raises(ConfigError, match="in a circle: b -> a -> b"):
        models.with_deployment(falls_back("b", "a"))
