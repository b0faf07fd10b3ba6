"""A deployment as a table, and back: nothing is lost, and no key goes along."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.config.deployment_table import (
    LiteralSecretError,
    deployment_table,
    table_deployment,
)
from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.budget import Budget, OnExceeded, Per, Window
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.failover import (
    BreakerPolicy,
    Fallback,
    FallbackReason,
    HedgePolicy,
    OnCapacity,
    OnCut,
)
from atomr_infer.model.placement import Check, Placement, Role
from atomr_infer.model.prices import Price, Rates, Tier
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.ray import RayHost
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    Secret,
)
from atomr_infer.model.swap_plan import SwapPlan

WHOLE = Deployment(
    name="gpt",
    runtime="openai",
    model="gpt-5",
    interpreter="/venv/bin/python",
    environment={"OMP_NUM_THREADS": "4"},
    memory_limit_gib=12.5,
    serves=("gpt-*", "openai/*"),
    default_max_tokens=4096,
    credentials=(EnvSecret("A"), PooledSecret(FileSecret("/run/b"), weight=3)),
    price=Price(
        rates=Rates(input=0.15, output=0.6, cache_read="0.075"),
        tiers=(Tier(above_prompt_tokens=200_000, rates=Rates(input=0.3)),),
        request=2,
    ),
    options={"endpoint": "https://x", "headers": {"a": "b"}, "n": [1, 2.5, True]},
    serving=Serving(replicas=2, on_capacity_exhausted=OnCapacity.REJECT),
    timeouts=Timeouts(total_s=5.0),
    retry=RetryPolicy(max_attempts=1, jitter=Jitter.NONE, idempotent=False),
    fallbacks=(
        Fallback(to="other"),
        Fallback(to="third", on=frozenset({FallbackReason.AUTH}), model="m"),
    ),
    on_cut=OnCut.BUFFER,
    breaker=BreakerPolicy(max_failures=0),
    hedge=HedgePolicy(after_s=1.5),
    hot_swap=SwapPlan(steps=(0.1, 0.5), probe=None),
    placement=Placement(
        roles={Role.GPU, Role.EDGE},
        labels={"region": ("eu", "us"), "zone": "a"},
        gpus=2,
        gpu_memory_gib=20.5,
        colocate_with="other",
        everywhere=False,
        check=Check.NONE,
    ),
    ray=RayHost(address="head:6379", num_gpus=0.5, resources={"TPU": 2}),
    rate_limits=RateLimits(requests_per_minute=60, max_concurrent=3),
    budget=(
        Budget(
            per=Per.DAY,
            usd="0.10",
            on_exceeded=OnExceeded.DOWNGRADE,
            downgrade_to="small",
            alert_at=(),
        ),
        Budget(per=Per.MONTH, tokens=5, window=Window.ROLLING),
    ),
)


def test_a_table_has_what_differs_from_the_defaults() -> None:
    deployment = Deployment(
        name="tiny", runtime="mock", serving=Serving(max_queue=3), serves=("tiny",)
    )
    assert deployment_table(deployment) == {
        "name": "tiny",
        "runtime": "mock",
        "serving": {"max_queue": 3},
    }


def test_everything_comes_back() -> None:
    assert table_deployment(deployment_table(WHOLE)) == WHOLE


def test_whatever_a_deployment_has_is_in_the_whole_one() -> None:
    """A field that is added to a deployment is added to ``WHOLE``."""
    bare = Deployment(name="bare", runtime="mock")
    same = {
        field.name
        for field in attrs.fields(Deployment)
        if getattr(WHOLE, field.name) == getattr(bare, field.name)
    }
    assert same <= {"credential"}


@pytest.mark.parametrize(
    ("source", "table"),
    [
        (EnvSecret("KEY"), {"env": "KEY"}),
        (FileSecret("/run/key"), {"file": "/run/key"}),
        (HeaderSecret("X-Key"), {"header": "x-key"}),
        (
            PluginSecret("oauth2", {"client_secret": EnvSecret("S"), "url": "u"}),
            {"provider": "oauth2", "client_secret": {"env": "S"}, "url": "u"},
        ),
    ],
)
def test_where_a_key_is_found_goes_along(
    source: EnvSecret | FileSecret | HeaderSecret | PluginSecret,
    table: dict[str, object],
) -> None:
    deployment = Deployment(name="gpt", runtime="mock", credential=source)
    assert deployment_table(deployment)["credential"] == table
    assert table_deployment(deployment_table(deployment)) == deployment


@pytest.mark.parametrize(
    "secret",
    [
        {"credential": Secret("sk-1")},
        {"credentials": (Secret("sk-1"),)},
        {"credential": PluginSecret("oauth2", {"client_secret": Secret("sk-1")})},
    ],
)
def test_a_key_itself_is_refused_and_not_told(secret: dict[str, object]) -> None:
    deployment = Deployment(name="gpt", runtime="mock", **secret)  # type: ignore[arg-type]
    with pytest.raises(LiteralSecretError, match="name where each finds it") as caught:
        deployment_table(deployment)
    assert "sk-1" not in str(caught.value)


def test_a_file_and_its_table_are_the_same_deployment() -> None:
    text = """
    [[deployment]]
    name = "tiny"
    runtime = "mock"
    serves = ["tiny", "small"]
    [deployment.placement]
    labels = { region = "eu" }
    [deployment.serving]
    max_queue = 256
    """
    [deployment] = parse_config(text, "atomr.toml").deployments
    table = deployment_table(deployment)
    assert table == {
        "name": "tiny",
        "runtime": "mock",
        "serves": ["tiny", "small"],
        "placement": {"labels": {"region": ["eu"]}},
    }
    assert table_deployment(table) == deployment


def test_what_a_later_version_wrote_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="'tiny': unknown key 'colour'"):
        table_deployment({"name": "tiny", "runtime": "mock", "colour": "red"})
