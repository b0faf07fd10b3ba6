"""The operators' routes for the configuration and the end of a node."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.gateway.http import Answer, chat, request, until

if TYPE_CHECKING:
    from tests.gateway.conftest import Running, Serve

M = Deployment(name="m", runtime="mock")
ADMIN = Secret("adm-1234")


@attrs.define
class Program:
    """A program that remembers what operators asked of it."""

    reason: str | None = None
    draining: bool = False
    asked: list[object] = attrs.field(factory=list)

    def shown(self) -> dict[str, object]:
        return {"configuration": {"state": "taken"}, "draining": self.draining}

    async def reload(self, cause: str, *, dry_run: bool) -> dict[str, object]:
        await trio.lowlevel.checkpoint()  # as what reads a file does
        self.asked.append((cause, dry_run))
        return {"taken": self.reason is None, "reason": self.reason, "differences": []}

    def drain(self) -> dict[str, object]:
        self.draining = True
        return {"draining": True}

    def take_again(self) -> bool:
        was, self.draining = self.draining, False
        return was


async def ask(running: Running, method: str, path: str) -> Answer:
    key: dict[str, Any] = {"authorization": "Bearer adm-1234"}
    return await request(running.port, method, path, b"", **key)


async def test_a_program_without_a_configuration_says_so(serve: Serve) -> None:
    async with serve(M, admin_key=ADMIN) as running:
        for path in ("/admin/reload", "/admin/drain", "/admin/drain/undo"):
            answer = await ask(running, "POST", path)
            assert answer.status == 409
            assert answer.json["error"]["code"] == "no_lifecycle"
        status = (await ask(running, "GET", "/admin/status")).json
        assert (status["ready"], status["ending"]) == (True, [])
        assert [each["name"] for each in status["deployments"]] == ["m"]
        assert "configuration" not in status


async def test_what_is_asked_of_the_program_is_what_it_answers(serve: Serve) -> None:
    async with serve(M, admin_key=ADMIN) as running:
        program = running.cluster.lifecycle = Program()
        for path in ("/admin/reload", "/admin/reload?dry_run=true"):
            answer = await ask(running, "POST", path)
            assert answer.json == {"taken": True, "reason": None, "differences": []}
        assert program.asked == [("admin at 127.0.0.1", n) for n in (False, True)]
        status = (await ask(running, "GET", "/admin/status")).json
        assert status["configuration"] == {"state": "taken"}
        assert (await ask(running, "POST", "/admin/drain")).json == {"draining": True}
        undone = await ask(running, "POST", "/admin/drain/undo")
        assert undone.json == {"draining": False}
        again = await ask(running, "POST", "/admin/drain/undo")
        assert (again.status, again.json["error"]["code"]) == (409, "not_draining")


async def test_a_configuration_that_is_refused_is_an_error_with_its_reason(
    serve: Serve,
) -> None:
    async with serve(M, admin_key=ADMIN) as running:
        running.cluster.lifecycle = Program(reason="atomr.toml:3: no")
        answer = await ask(running, "POST", "/admin/reload")
        assert answer.status == 409
        assert answer.json["taken"] is False
        assert answer.json["error"] == {
            "message": "the configuration is not taken: atomr.toml:3: no",
            "type": "admin_error",
            "param": None,
            "code": "configuration_refused",
        }


async def test_without_the_key_nothing_is_told_and_nothing_done(serve: Serve) -> None:
    async with serve(M, admin_key=ADMIN) as running:
        program = running.cluster.lifecycle = Program()
        for method, path in (
            ("GET", "/admin/status"),
            ("POST", "/admin/reload"),
            ("POST", "/admin/drain"),
        ):
            assert (await request(running.port, method, path)).status == 401
        assert (program.asked, program.draining) == ([], False)


async def test_what_takes_its_time_is_done_to_the_end_on_all_nodes(
    serve: Serve,
) -> None:
    async with serve(M, admin_key=ADMIN) as running:
        program = running.cluster.lifecycle = Program()
        answer = await ask(running, "POST", "/admin/reload?nodes=all")
        assert answer.status == 200
        (told,) = answer.json["nodes"].values()
        assert (told["status"], told["answer"]["taken"]) == (200, True)
        assert len(program.asked) == 1


async def test_a_deployment_that_drains_is_shown_as_ending(serve: Serve) -> None:
    slow = attrs.evolve(M, options={"reply": "one two three", "delay_s": 30.0})
    async with serve(slow, admin_key=ADMIN) as running, trio.open_nursery() as nursery:
        replica = running.cluster._serving.replicas("m")[0]
        nursery.start_soon(partial(chat, running.port, stream=True))
        await until(lambda: replica.running == 1)
        nursery.start_soon(partial(running.cluster.undeploy, "m", drain_s=30.0))
        await until(lambda: not running.cluster._serving.deployments)
        status = (await ask(running, "GET", "/admin/status")).json
        assert (status["ending"], status["deployments"]) == (["m"], [])
        nursery.cancel_scope.cancel()
