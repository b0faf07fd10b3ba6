"""`atomr_infer.cluster`: deployments come, answer, fail and go."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.cluster import ChatReply, Cluster
from atomr_infer.errors import (
    ConfigError,
    EngineStartError,
    MissingSecretError,
    ModelNotFoundError,
    NotReadyError,
    PluginError,
    UpstreamError,
)
from atomr_infer.model.batch import FinishReason, Message, Role, TokenChunk, Usage
from atomr_infer.model.deployment import Deployment, RetryPolicy
from atomr_infer.model.secret import EnvSecret
from atomr_infer.serving.replicas.replica import Phase

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio.testing import MockClock

    from atomr_infer.model.deployment import OptionValue
    from atomr_infer.serving.replicas.replica import ReplicaState
    from tests.facade.waiting import WaitingPlugin


def mock(name: str = "m", **options: OptionValue) -> Deployment:
    return Deployment(
        name=name, runtime="mock", options=options, retry=RetryPolicy(max_attempts=1)
    )


def waiting_one(**options: OptionValue) -> Deployment:
    return Deployment(name="w", runtime="waiting", options=options)


# --- opening and closing -------------------------------------------------------


@pytest.mark.parametrize("address", ["", "app", "inproc://", "tcp://host:1"])
async def test_an_address_of_another_kind_is_refused(address: str) -> None:
    with pytest.raises(ConfigError) as caught:
        async with Cluster.connect(address):
            pass

    assert str(caught.value) == f"cannot connect to {address!r}; use inproc://NAME"


async def test_what_the_block_raises_leaves_it_in_no_group() -> None:
    with pytest.raises(ZeroDivisionError):
        async with Cluster.connect("inproc://app") as cluster:
            await cluster.deploy(mock())
            raise ZeroDivisionError


async def test_a_closed_cluster_answers_nothing() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())

    with pytest.raises(NotReadyError):
        await cluster.chat("m", "hello")


async def test_leaving_the_block_ends_the_requests_of_other_tasks() -> None:
    ended: list[Exception] = []

    async def ask(cluster: Cluster) -> None:
        try:
            await cluster.chat("m", "hello")
        except NotReadyError as error:
            ended.append(error)

    async with (
        trio.open_nursery() as nursery,
        Cluster.connect("inproc://app") as cluster,
    ):
        await cluster.deploy(mock(hang_after=0))
        nursery.start_soon(ask, cluster)
        await trio.testing.wait_all_tasks_blocked()

    assert [str(error) for error in ended] == ["the server is shutting down"]


async def test_two_clusters_in_one_program_do_not_mix() -> None:
    async with (
        Cluster.connect("inproc://one") as one,
        Cluster.connect("inproc://two") as two,
    ):
        await one.deploy(mock(reply="first"))
        await two.deploy(mock(reply="second"))

        assert (await one.chat("m", "x")).text == "first"
        assert (await two.chat("m", "x")).text == "second"
        assert await one.undeploy("m")
        assert (one.models(), two.models()) == ((), ("m",))


async def test_a_task_that_is_older_than_the_cluster_may_use_it() -> None:
    send, receive = trio.open_memory_channel[Cluster](0)
    replies: list[str] = []

    async def old_task() -> None:
        cluster = await receive.receive()
        replies.append((await cluster.chat("m", "hello")).text)
        async with cluster.stream("m", "again") as chunks:
            replies.append("".join([chunk.text async for chunk in chunks]))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(old_task)
        async with Cluster.connect("inproc://app") as cluster:
            await cluster.deploy(mock())
            await send.send(cluster)
            await trio.testing.wait_all_tasks_blocked()

    assert replies == ["hello", "again"]


# --- deploying -----------------------------------------------------------------


async def test_an_unknown_runtime_is_named_with_the_nearest_one() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with pytest.raises(PluginError, match=r"'mok'.*did you mean 'mock'"):
            await cluster.deploy(Deployment(name="m", runtime="mok"))

        assert cluster.models() == ()


async def test_an_option_that_the_runtime_does_not_know_is_refused() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with pytest.raises(ConfigError, match=r"'replay'; did you mean 'reply'"):
            await cluster.deploy(mock(replay="hi"))

        assert cluster.models() == ()


async def test_a_name_is_deployed_once_and_the_first_one_goes_on() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(reply="first"))
        with pytest.raises(ConfigError, match="'m'"):
            await cluster.deploy(mock(reply="second"))

        assert (await cluster.chat("m", "x")).text == "first"


async def test_a_missing_secret_names_its_variable() -> None:
    deployment = Deployment(
        name="m", runtime="mock", credential=EnvSecret("MY_PROVIDER_KEY")
    )
    async with Cluster.connect("inproc://app", environ={}) as cluster:
        with pytest.raises(MissingSecretError, match="export MY_PROVIDER_KEY="):
            await cluster.deploy(deployment)

        assert cluster.models() == ()


async def test_a_deployment_that_cannot_load_is_removed_again(
    waiting: WaitingPlugin,
) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with pytest.raises(EngineStartError, match="the weights are damaged"):
            await cluster.deploy(waiting_one(fails=True))

        assert cluster.models() == ()
        await cluster.deploy(waiting_one())
        assert (await cluster.chat("w", "better now")).text == "better now"


async def test_progress_is_told_while_it_loads(
    waiting: WaitingPlugin, autojump_clock: MockClock
) -> None:
    seen: list[tuple[Phase, str]] = []

    def show(replica: ReplicaState) -> None:
        if replica.progress is not None:
            seen.append((replica.phase, replica.progress.phase))

    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(waiting_one(load_s=1.05), progress=show)

    assert set(seen) == {(Phase.LOADING, "loading weights")}
    assert len(seen) >= 10


async def test_a_cancelled_deploy_is_removed_again(
    waiting: WaitingPlugin, autojump_clock: MockClock
) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with trio.move_on_after(1) as scope:
            await cluster.deploy(waiting_one(load_s=60.0))

        assert scope.cancelled_caught
        assert cluster.models() == ()


async def test_undeploy_ends_running_requests_with_an_error(
    autojump_clock: MockClock,
) -> None:
    async with (
        Cluster.connect("inproc://app") as cluster,
        trio.open_nursery() as nursery,
    ):
        await cluster.deploy(mock(hang_after=1))
        async with cluster.stream("m", "one two") as chunks:
            assert await anext(chunks) == TokenChunk(text="one")
            nursery.start_soon(cluster.undeploy, "m")
            with pytest.raises(NotReadyError), trio.fail_after(10):
                await anext(chunks)

        assert cluster.models() == ()
        assert await cluster.undeploy("m") is False


async def test_readiness_and_replicas_say_what_serves() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        assert cluster.readiness().ready is False
        await cluster.deploy(mock())

        readiness = cluster.readiness()
        assert (readiness.ready, dict(readiness.phases)) == (True, {"m": "serving"})
        [replica] = await cluster.replicas("m")
        assert (replica.phase, replica.running, replica.starts) == (Phase.SERVING, 0, 1)


# --- asking ---------------------------------------------------------------------


async def test_chat_returns_the_whole_answer() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        reply = await cluster.chat("m", "one two three", max_tokens=2)

    assert reply == ChatReply(
        text="one two",
        finish_reason=FinishReason.LENGTH,
        usage=Usage(input_uncached=3, output_text=2),
        deployment="m",
        attempts=1,
    )


@pytest.mark.parametrize(
    "conversation",
    [
        [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hi"}],
        [Message(Role.SYSTEM, "Be brief."), Message(Role.USER, "hi")],
    ],
)
async def test_a_conversation_is_values_or_mappings(
    conversation: list[Message | Mapping[str, str]],
) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        reply = await cluster.chat("m", conversation)

    assert (reply.text, reply.usage) == ("hi", Usage(input_uncached=3, output_text=1))


async def test_an_empty_conversation_is_refused() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        with pytest.raises(ValueError, match="at least one message"):
            await cluster.chat("m", [])


async def test_a_model_that_nobody_serves_is_not_found() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        with pytest.raises(ModelNotFoundError, match="'n'"):
            await cluster.chat("n", "hello")


async def test_a_failure_in_mid_answer_is_raised_and_not_half_an_answer() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(fail_after=1))
        with pytest.raises(UpstreamError, match="the mock fails"):
            await cluster.chat("m", "one two")


async def test_a_cancelled_chat_frees_the_engine(autojump_clock: MockClock) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock(hang_after=0))
        with trio.move_on_after(1) as scope:
            await cluster.chat("m", "hello")
        await trio.testing.wait_all_tasks_blocked()

        assert scope.cancelled_caught
        [replica] = await cluster.replicas("m")
        assert replica.running == 0


# --- serving ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "bind", ["8080", "localhost", "host:port", "a:b:80", "h:70000"]
)
async def test_an_address_that_is_none_is_a_config_error(bind: str) -> None:
    async with Cluster.connect("inproc://app") as cluster:
        with pytest.raises(ConfigError, match="is not an address such as"):
            await cluster.serve(bind)


async def test_a_gateway_serves_until_the_block_is_left() -> None:
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(mock())
        gateway = await cluster.serve("127.0.0.1:0")
        port = int(gateway.url.rpartition(":")[2])
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        async with stream:
            await stream.send_all(
                b"GET /v1/models HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            answer = b"".join([piece async for piece in stream])

    assert answer.startswith(b"HTTP/1.1 200")
    assert b'"id":"m"' in answer
    with pytest.raises(OSError, match=r"127\.0\.0\.1"):
        await trio.open_tcp_stream("127.0.0.1", port)


async def test_a_deployment_without_a_runtime_has_the_one_of_its_model() -> None:
    wanted = Deployment(name="gpt-5", options={"endpoint": "http://127.0.0.1:9/v1"})
    async with Cluster.connect("inproc://test", environ={}) as cluster:
        assert cluster.explain(wanted).deployment == "gpt-5"
        await cluster.deploy(wanted)
        [status] = cluster.deployments()
        assert (status.name, status.runtime) == ("gpt-5", "openai")
        await cluster.change(attrs.evolve(wanted, serves=("gpt-5", "chat")))
        await cluster.replace(attrs.evolve(wanted, model="gpt-5-mini"))
        [status] = cluster.deployments()
        assert (status.serves, status.runtime) == (("gpt-5",), "openai")


async def test_a_model_that_no_runtime_knows_is_refused() -> None:
    said = "deployment 'mine': runtime is missing, and none is known for the model 'x'"
    async with Cluster.connect("inproc://test", environ={}) as cluster:
        with pytest.raises(ConfigError, match=said):
            await cluster.deploy(Deployment(name="mine", model="x"))
        assert cluster.models() == ()
