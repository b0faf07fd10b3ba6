"""Peers that lie, hang and flood, messages that do not cross, callers that leave."""

from __future__ import annotations

import gc
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio

from atomr import telemetry
from atomr.cluster.remote import Messages, RemoteProcesses, at
from atomr.cluster.remote import frames as f
from atomr.core.child_spec import Restart
from atomr.core.exits import KILLED, NOCONNECTION
from atomr.core.mailbox_limit import MailboxLimit, Overflow
from atomr.core.messages import Down
from atomr.errors import (
    CallTimeoutError,
    LinkMessageError,
    NoNodeError,
    RemoteCallError,
    RemoteError,
    ServerDownError,
    SystemMessageError,
    UnregisteredMessageError,
)
from atomr.http2 import Link, Reason, Service
from atomr.otp import GenServer, call, cast, child, sys
from atomr.otp.results import Reply
from atomr.process import (
    From,
    PlainProcess,
    exit_process,
    kill,
    link,
    monitor,
    receive,
    self_pid,
    send,
    unlink,
)
from tests.atomr.cluster.loopback import LoopbackNode, open_loopback
from tests.atomr.cluster.remote.servers import (
    MESSAGES,
    Add,
    Counter,
    Get,
    Give,
    Later,
    Note,
    Refuse,
    Unknown,
    Waiter,
)
from tests.atomr.http2.conftest import Authority, until

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr.refs import Pid
    from tests.atomr.cluster.remote.conftest import Nodes, OpenNodes

BIG = b"x" * 60_000


async def start(nodes: Nodes, make: type[GenServer], name: str = "server") -> Pid:
    spec = child(make, name=name, restart=Restart.TEMPORARY)
    pid = await nodes["b"].node.start(spec)
    return nodes.remotes["a"].life(nodes["b"].origin).pid(pid.number)


def sessions(nodes: Nodes) -> tuple[Any, Any]:
    here = nodes.remotes["a"].life(nodes["b"].origin).session
    there = nodes.remotes["b"].life(nodes["a"].origin).session
    return here, there


# --- messages that do not cross -------------------------------------------------------


async def test_an_unregistered_message_is_raised_where_it_is_sent(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def tell() -> object:
            for use in (send, cast):
                with pytest.raises(UnregisteredMessageError, match="Unknown is not"):
                    use(server, Unknown(1))
            with pytest.raises(UnregisteredMessageError, match=r"Messages\(..., Unk"):
                await call(server, [Unknown(1)])
            return await call(server, Give("notes"))

        assert await nodes["a"].run(tell) == []
        here, there = sessions(nodes)
        assert (here.calls, there.answering) == ({}, {})


async def test_a_reply_that_does_not_cross_fails_its_call_alone(
    open_nodes: OpenNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def ask() -> list[str]:
            codes = []
            for what in ("unknown", "megabytes"):
                with pytest.raises(RemoteCallError) as caught:
                    await call(server, Give(what))
                codes.append(caught.value.code)
            assert await call(server, Get()) == 0
            return codes

        assert await nodes["a"].run(ask) == ["bad_reply", "long_reply"]
        assert "Unknown is not among the messages" in caplog.text


async def test_a_message_over_what_a_link_carries_is_told_to_its_sender(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def tell() -> object:
            with pytest.raises(RemoteCallError) as caught:
                await call(server, b"x" * 1_100_000)
            assert caught.value.code == "too_long"
            for use in (send, cast):
                with pytest.raises(LinkMessageError):
                    use(server, b"x" * 1_100_000)
            return await call(server, b"y" * 1_000_000)

        assert await nodes["a"].run(tell) == b"y" * 1_000_000


async def test_a_type_that_one_node_does_not_know_concerns_that_message_alone(
    open_nodes: OpenNodes, caplog: pytest.LogCaptureFixture
) -> None:
    known = {"a": MESSAGES | Messages(Unknown), "b": MESSAGES}
    async with open_nodes("a", "b", messages=known) as nodes:
        server = await start(nodes, Counter)

        async def tell() -> object:
            send(server, Unknown(1))
            cast(server, [Unknown(2)])
            with pytest.raises(RemoteCallError) as caught:
                await call(server, Unknown(3))
            assert caught.value.code == "unknown_message"
            send(server, Note("after"))
            return await call(server, Give("notes"))

        assert await nodes["a"].run(tell) == [Note("after")]
        assert nodes.remotes["b"].refused == {"unknown_message": 3}
        assert "no message is registered there as 'Unknown'" in caplog.text


async def test_a_reply_of_a_type_that_the_caller_does_not_know_fails_the_call(
    open_nodes: OpenNodes,
) -> None:
    known = {"a": MESSAGES, "b": MESSAGES | Messages(Unknown)}
    async with open_nodes("a", "b", messages=known) as nodes:
        server = await start(nodes, Counter)
        with pytest.raises(RemoteCallError) as caught:
            await nodes["a"].run(call, server, Give("unknown"))
        assert caught.value.code == "bad_reply"


async def test_a_timer_whose_message_does_not_cross_ends_nothing(
    open_nodes: OpenNodes, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)
        process = server._process
        assert process is not None
        process.deliver(Unknown(1))
        assert nodes.remotes["a"].dropped == {"unsendable": 1}
        assert "was not sent" in caplog.text


async def test_a_bounded_mailbox_that_is_full_is_told_of(open_nodes: OpenNodes) -> None:
    async def sleep() -> None:
        await trio.sleep_forever()

    async with open_nodes("a", "b") as nodes:
        limit = MailboxLimit(2, Overflow.REJECT)
        pid = nodes["b"].node.spawn(
            PlainProcess(sleep), label="x", name="full", mailbox=limit
        )

        async def tell() -> None:
            for number in range(5):
                send(at("b", "full"), number)

        await nodes["a"].run(tell)
        await until(lambda: nodes.remotes["b"].refused)
        assert nodes.remotes["b"].refused == {"mailbox_full": 3}
        assert pid._process is not None


async def test_what_utf8_does_not_have_ends_no_link(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def ask() -> list[object]:
            with pytest.raises(ValueError, match="surrogates"):
                await call(server, "half \ud800")
            with pytest.raises(RemoteError) as caught:
                await call(server, Refuse("x" * 5000))
            assert len(caught.value.text) == 2000
            ref = monitor(server)
            exit_process(server, ValueError("half \ud800"))
            down = await receive()
            assert isinstance(down, Down)
            assert down.ref is ref
            assert isinstance(down.reason, RemoteError)
            return [down.reason.text]

        with trio.fail_after(10):
            assert await nodes["a"].run(ask) == ["half ?"]


@pytest.mark.parametrize("name", ["", "x" * 256, "half \ud800"])
def test_a_name_that_the_other_node_would_not_take_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="at\\(\\): name="):
        at("b", name)
    with pytest.raises(ValueError, match="at\\(\\): node="):
        at(name, "b")


# --- a link that is busy --------------------------------------------------------------


async def test_on_a_busy_link_calls_fail_and_messages_are_counted(
    open_nodes: OpenNodes,
) -> None:
    seen: list[object] = []

    def on_drop(_: object, __: object, metadata: Mapping[str, object]) -> None:
        seen.append((metadata["reason"], metadata["to"]))

    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def flood() -> None:
            sent = 0
            # Nothing is written in between: the loop has no turn.
            while not nodes.remotes["a"].dropped:
                cast(server, BIG)
                sent += 1
            send(server, "also dropped")
            with pytest.raises(RemoteCallError) as caught:
                await call(server, Get())
            assert caught.value.code == "busy"
            # A signal waits for its room.
            ref = monitor(server)
            kill(server)
            assert await receive() == Down(ref, server, KILLED)
            assert nodes.remotes["a"].dropped == {"busy": 2}
            assert sent > 40

        telemetry.attach("drops", ("atomr", "remote", "drop"), on_drop)
        try:
            with trio.fail_after(10):
                await nodes["a"].run(flood)
        finally:
            telemetry.detach("drops")
        assert seen == [("busy", server.number)] * 2


async def test_nothing_overtakes_a_signal_that_waits_for_room(
    open_nodes: OpenNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomr.cluster.remote.session.RETRY_S", 3600.0)
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def flood() -> None:
            while not nodes.remotes["a"].dropped:
                cast(server, BIG)
            monitor(server)
            here, _ = sessions(nodes)
            # There is room again, but the signal was first.
            await here.link.room()
            with pytest.raises(RemoteCallError):
                await call(server, Get())
            here._retry()
            assert not here._waiting
            assert await call(server, Get()) == 0

        with trio.fail_after(10):
            await nodes["a"].run(flood)


async def test_a_peer_that_reads_no_signals_is_cut_off(
    open_nodes: OpenNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("atomr.cluster.remote.session.MAX_WAITING_BYTES", 1000)
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)
        other = await start(nodes, Counter, name="other")

        async def flood() -> object:
            while not nodes.remotes["a"].dropped:
                cast(server, BIG)
            for _ in range(20):
                monitor(server)
                ref = monitor(other)
                unlink(other)
                link(other)
                unlink(other)
            return await receive(lambda m: isinstance(m, Down) and m.ref is ref)

        with trio.fail_after(10):
            found = await nodes["a"].run(flood)
        assert getattr(found, "reason", None) is NOCONNECTION


# --- callers that leave ---------------------------------------------------------------


async def test_a_caller_that_leaves_is_told_of_and_leaves_nothing(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)

        async def leave() -> None:
            with pytest.raises(CallTimeoutError):
                await call(server, Give("nothing"), timeout_s=0.05)
            with trio.move_on_after(0.05):
                await call(server, Give("nothing"))
            assert await call(server, Get()) == 0

        await nodes["a"].run(leave)
        here, there = sessions(nodes)
        await until(lambda: not there.answering)
        assert (here.calls, here.late) == ({}, 0)
        process = nodes["b"].node.names["server"]
        assert not process.deferred


async def test_a_late_reply_is_counted_and_dropped(open_nodes: OpenNodes) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Waiter)

        async def ask() -> object:
            with pytest.raises(CallTimeoutError):
                await call(server, Later(0.1), timeout_s=0.02)
            return await call(server, "next")

        assert await nodes["a"].run(ask) == "next"


class Relay(GenServer):
    async def handle_call(self, request: Pid, _: From) -> Reply:
        return Reply(await call(request, "again", timeout_s=0.1))


async def test_a_process_that_calls_itself_through_another_node_does_not_hang(
    open_nodes: OpenNodes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "atomr")
    async with open_nodes("a", "b") as nodes:
        relay = await start(nodes, Relay)

        async def loop() -> None:
            # Here the process is this one: it is waiting, and so takes no call.
            with pytest.raises(ServerDownError) as caught:
                await call(relay, self_pid(), timeout_s=2.0)
            assert isinstance(caught.value.reason, RemoteError)
            assert caught.value.reason.type_name == "CallTimeoutError"

        with trio.fail_after(5):
            await nodes["a"].run(loop)


# --- peers that lie -------------------------------------------------------------------


class Liar:
    """A node that says what it likes under the name ``process``."""

    def __init__(self, node: LoopbackNode, link: Link, heard: list[object]) -> None:
        self.node = node
        self.link = link
        self.heard = heard

    def say(self, *frames: object) -> None:
        for frame in frames:
            self.link.tell("process", frame)

    async def answered(self) -> None:
        """Wait until all that was said has been handled."""
        self.say(f.Watch(99_999, "nobody"))
        end = f.Ended(99_999, f.Told("noproc"))
        await until(lambda: end in self.heard)
        self.heard.remove(end)


def body(value: object) -> msgspec.Raw:
    return msgspec.Raw(msgspec.msgpack.encode(value))


@pytest.fixture
def open_liar(authority: Authority) -> Any:
    @asynccontextmanager
    async def opened() -> Any:
        remote = RemoteProcesses(MESSAGES)
        heard: list[object] = []
        service: Service[Any] = Service(f.Frame, tell=lambda _, x: heard.append(x))
        async with (
            open_loopback(authority, "honest", [remote]) as honest,
            open_loopback(authority, "liar", extra={"process": service}) as node,
        ):
            await honest.node.start(
                child(Counter, name="server", restart=Restart.TEMPORARY)
            )
            yield Liar(node, await node.dial(honest), heard), honest, remote

    return opened


async def test_what_a_liar_answers_unasked_changes_nothing(open_liar: Any) -> None:
    async with open_liar() as (liar, honest, remote):
        server = honest.node.names["server"].pid.number
        none = body(None)
        liar.say(
            f.Reply(7, "", none),
            f.Failed(7, "down", f.Told("normal")),
            f.Cancel(7),
            f.Ended(7, f.Told("killed")),
            f.Unwatch(7),
            f.Unlink(1, server, 5),
            f.Unlinked(1, server, 9),
            f.LinkEnded(1, server, f.Told("killed")),
            f.LinkEnded(1, 12345, f.Told("killed")),
            f.Send(12345, "", none),
            f.CastTo("nobody", "", none),
            f.Signal(12345, 0, f.Told("kill")),
            f.Stop("nobody", f.Told("normal")),
        )
        await liar.answered()
        with honest.here():
            assert await call("server", Get()) == 0
        assert liar.heard == [f.Unlinked(server, 1, 5)]
        assert not honest.node.names["server"].links
        session = remote.life(liar.node.origin).session
        assert session.late == 2


async def test_messages_that_are_none_are_refused_one_by_one(open_liar: Any) -> None:
    async with open_liar() as (liar, _honest, remote):
        liar.say(
            f.Send("server", "Nothing", body({})),
            f.CastTo("server", "Add", body({"amount": "many"})),
            f.Send("server", "", body(msgspec.msgpack.Ext(9, b""))),
            f.Call(1, 0, "server", "Nothing", body({})),
            f.Call(2, 0, "server", "Add", body({})),
            f.Call(3, 0, "server", "Get", body({})),
        )
        await liar.answered()
        failed = [(x.id, x.code) for x in liar.heard if isinstance(x, f.Failed)]
        assert failed == [(1, "unknown_message"), (2, "bad_message")]
        assert [x.id for x in liar.heard if isinstance(x, f.Reply)] == [3]
        assert remote.refused == {"unknown_message": 2, "bad_message": 3}


@pytest.mark.parametrize(
    "frames",
    [
        (b"nonsense",),
        ([99, 1],),
        ([1, 0, "", None],),
        ([1, "x" * 300, "", None],),
        (
            f.Call(5, 0, "server", "Give", body({"what": "nothing"})),
            f.Call(5, 0, "server", "Give", body({"what": "nothing"})),
        ),
        (f.Watch(6, "server"), f.Watch(6, "server")),
    ],
)
async def test_a_peer_that_breaks_the_rules_is_cut_off_alone(
    open_liar: Any, authority: Authority, frames: tuple[object, ...]
) -> None:
    async with (
        open_liar() as (liar, honest, remote),
        open_loopback(authority, "good", [RemoteProcesses(MESSAGES)]) as good,
    ):
        await good.dial(honest)
        liar.say(*frames)
        with trio.fail_after(5):
            await liar.link.wait_down()
        assert await good.run(call, at("honest", "server"), Add(1)) == 1
        assert remote.life(liar.node.origin).session is None
        process = honest.node.names["server"]
        assert not process.on_end
        assert not process.deferred


async def test_what_a_liar_says_of_ends_is_believed_as_words(open_liar: Any) -> None:
    async with open_liar() as (liar, honest, remote):
        theirs = remote.life(liar.node.origin).pid(3)

        async def watch() -> list[object]:
            monitor(theirs)
            await until(lambda: liar.heard)
            (watch,) = liar.heard
            why = f.Told("os.system", name="", text="rm")
            liar.say(f.Ended(watch.id, why), f.Ended(watch.id, why))
            return [(await receive()).reason]  # type: ignore[attr-defined]

        (reason,) = await honest.run(watch)
        assert isinstance(reason, RemoteError)
        assert (reason.type_name, reason.text) == ("os.system", "rm")


async def test_the_end_of_a_names_holder_leaves_calls_to_the_next_one(
    open_liar: Any,
) -> None:
    async with open_liar() as (liar, honest, _):

        async def use() -> tuple[object, object]:
            there = at("liar", "server")
            ref = monitor(there)
            async with trio.open_nursery() as nursery:
                answers: list[object] = []

                async def ask() -> None:
                    answers.append(await call(there, "who?"))

                nursery.start_soon(ask)
                await until(lambda: len(liar.heard) == 2)
                (watch,) = (x for x in liar.heard if isinstance(x, f.Watch))
                (asked,) = (x for x in liar.heard if isinstance(x, f.Call))
                liar.say(f.Ended(watch.id, f.Told("killed")))
                down = await receive()
                assert isinstance(down, Down)
                assert down.ref is ref
                liar.say(f.Reply(asked.id, "", body("the next one")))
            return down.reason, answers

        assert await honest.run(use) == (KILLED, ["the next one"])


async def test_pids_of_nodes_that_never_were_are_kept_by_nobody(open_liar: Any) -> None:
    async with open_liar() as (liar, _honest, remote):
        pid = msgspec.msgpack.encode(["nowhere", 1, 5, ""])
        many = [msgspec.msgpack.Ext(1, pid)] * 3
        liar.say(f.Call(1, 0, "server", "", body(many)))
        liar.say(f.Call(2, 77, "server", "Get", body({})))
        await liar.answered()
        reply = next(x for x in liar.heard if isinstance(x, f.Reply) and x.id == 1)
        assert msgspec.msgpack.decode(reply.body, ext_hook=lambda _, data: data)
        gc.collect()
        assert {o.name for o in remote._lives} == {"liar"}


async def test_the_frames_of_a_link_that_has_ended_are_not_heard(
    open_liar: Any,
) -> None:
    async with open_liar() as (liar, _honest, remote):
        await liar.answered()
        session = remote.life(liar.node.origin).session
        session.link.end(Reason.BROKEN, "the test cuts it")
        assert not session.up
        assert remote.life(liar.node.origin).session is None


# --- nothing is left ------------------------------------------------------------------


async def test_a_pid_that_nobody_holds_is_gone_at_once(open_nodes: OpenNodes) -> None:
    gc.disable()
    try:
        async with open_nodes("a", "b") as nodes:
            await start(nodes, Counter)
            number = nodes["b"].node.names["server"].pid.number

            async def use() -> None:
                server = nodes.remotes["a"].life(nodes["b"].origin).pid(number)
                assert await call(server, Get()) == 0
                ref = monitor(server)
                link(server)
                unlink(server)
                kill(server)
                await receive(lambda m: isinstance(m, Down) and m.ref is ref)

            await nodes["a"].run(use)
            life = nodes.remotes["a"].life(nodes["b"].origin)
            await until(lambda: not len(life._pids))
            assert len(life._proxies) == 0
            here, there = sessions(nodes)
            await until(lambda: not here.unlinks)
            assert (here.calls, here.watches, here.watched) == ({}, {}, {})
            assert (there.calls, there.watches, there.watched) == ({}, {}, {})
    finally:
        gc.enable()


async def test_there_is_nobody_elsewhere_without_a_cluster(
    authority: Authority,
) -> None:
    async with open_loopback(authority, "alone") as alone:
        with alone.here(), pytest.raises(NoNodeError, match="is in no cluster"):
            await call(at("b", "server"), Get())


async def test_a_process_of_another_node_answers_no_system_messages(
    open_nodes: OpenNodes,
) -> None:
    async with open_nodes("a", "b") as nodes:
        server = await start(nodes, Counter)
        with pytest.raises(SystemMessageError, match="process of another node"):
            await nodes["a"].run(sys.get_state, server)
