"""What a virtual key opens, in each dialect's own words, and for how long."""

from __future__ import annotations

import json
import time
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import attrs
import pytest
import trio

from atomr.cluster.replicator import Replicator
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import HeaderSecret, Secret
from atomr_infer.model.team import Team
from atomr_infer.model.virtual_key import VirtualKey
from atomr_infer.serving.limits.key_ring import KeyRing
from atomr_infer.testing.upstream import open_openai_upstream
from atomr_infer.testing.upstream_script import Happy
from tests.gateway.dialects import provider
from tests.gateway.http import Answer, chat_body, request
from tests.gateway.http1 import Client, get

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.conftest import Running, Serve

MOCK = Deployment(name="m", runtime="mock", serves=("m", "other", "gpt-*"))
NEVER = "sk-atomr-00000000000000000000000000000000000000000002CZclj"


@attrs.frozen
class Wall:
    """A clock that is moved by hand."""

    ring: KeyRing

    def move(self, seconds: float) -> None:
        now_s = self.ring.wall_s() + seconds
        self.ring.wall_s = lambda: now_s


@asynccontextmanager
async def opened(
    serve: Serve, *deployments: Deployment, **settings: Any
) -> AsyncIterator[tuple[Running, KeyRing]]:
    async with serve(*(deployments or (MOCK,)), virtual_keys=True, **settings) as it:
        yield it, it.cluster.key_ring


async def make(ring: KeyRing, name: str = "ci", **terms: Any) -> str:
    key = VirtualKey(id=ring.new_id(), name=name, **terms)
    return (await ring.create(key)).secret.reveal()


async def ask(port: int, key: str | None, model: str = "m", **more: str) -> Answer:
    headers = {} if key is None else {"authorization": f"Bearer {key}"}
    path, body = "/v1/chat/completions", chat_body(model=model)
    return await request(port, "POST", path, body, **headers, **more)


# --- who is let in --------------------------------------------------------------------


@pytest.mark.parametrize(
    "shown",
    [
        {"authorization": "Bearer {}"},
        {"x_api_key": "{}"},
        {"x_goog_api_key": "{}"},
        {"api_key": "{}"},
    ],
    ids=["bearer", "x-api-key", "x-goog-api-key", "api-key"],
)
async def test_a_virtual_key_opens_wherever_an_sdk_puts_it(
    serve: Serve, shown: dict[str, str]
) -> None:
    async with opened(serve) as (running, ring):
        key = await make(ring)
        headers = {name: text.format(key) for name, text in shown.items()}
        path = "/v1/chat/completions"
        answer = await request(running.port, "POST", path, chat_body(), **headers)
        by_query = f"/v1beta/models?key={key}"
        listed = await request(running.port, "GET", by_query)
    assert (answer.status, listed.status) == (200, 200)


async def test_nobody_comes_in_before_the_first_key_is_made(serve: Serve) -> None:
    async with opened(serve) as (running, _):
        answer = await ask(running.port, None)
        ready = await request(running.port, "GET", "/readyz")
    assert (answer.status, ready.status) == (401, 200)
    message = answer.json["error"]["message"]
    assert message == "the request shows no key that opens this gateway"


async def test_where_they_are_not_taken_they_open_nothing(serve: Serve) -> None:
    async with serve(MOCK, keys=[Secret("static")]) as running:
        key = await make(running.cluster.key_ring)
        answer = await ask(running.port, key)
        static = await ask(running.port, "static")
    assert (answer.status, static.status) == (401, 200)


async def test_keys_of_the_configuration_open_beside_them(serve: Serve) -> None:
    async with opened(serve, keys=[Secret("static")]) as (running, ring):
        key = await make(ring)
        answers = [await ask(running.port, each) for each in ("static", key, "no")]
    assert [answer.status for answer in answers] == [200, 200, 401]


TOLD = [
    ("POST", "/v1/chat/completions", ("error", "code"), "{code}"),
    ("POST", "/v1/responses", ("error", "code"), "{code}"),
    ("GET", "/v1/models", ("error", "code"), "{code}"),
    ("POST", "/v1/messages", ("error", "type"), "authentication_error"),
    (
        "POST",
        "/v1beta/models/m:generateContent",
        ("error", "status"),
        "UNAUTHENTICATED",
    ),
]


@pytest.mark.parametrize(("method", "path", "member", "kind"), TOLD)
async def test_who_is_not_let_in_is_told_why(
    serve: Serve, method: str, path: str, member: tuple[str, str], kind: str
) -> None:
    async with opened(serve) as (running, ring):
        expired = await make(ring, "expired", expires_at_s=1_700_000_000)
        revoked = await make(ring, "revoked")
        await ring.revoke("revoked")
        rotated = await make(ring, "rotated")
        await ring.rotate("rotated", grace_s=0)
        ring.take_teams([Team(name="gone")])
        teamless = await make(ring, "teamless", team="gone")
        ring.take_teams([])
        for key, code, why in (
            (NEVER, "invalid_api_key", "the virtual key is not known here"),
            (NEVER[:-1], "invalid_api_key", "the virtual key is mistyped or cut: its"),
            (
                expired,
                "api_key_expired",
                "the virtual key 'expired' expired at 2023-11-14T22:13:20Z",
            ),
            (revoked, "api_key_revoked", "the virtual key 'revoked' was revoked at 20"),
            (
                rotated,
                "api_key_rotated",
                "the virtual key 'rotated' has another secret",
            ),
            (teamless, "team_not_found", "is of the team 'gone', which is not"),
        ):
            authorization = f"Bearer {key}"
            answer = await request(
                running.port, method, path, b"{}", authorization=authorization
            )
            assert answer.status == 401
            assert why in answer.json["error"]["message"]
            one, other = member
            assert answer.json[one][other] == kind.format(code=code)
            assert key.encode() not in answer.body


# --- for how long -----------------------------------------------------------------


async def test_a_kept_connection_is_not_let_in_for_ever(serve: Serve) -> None:
    """Its heads say the same each time, so what they say is remembered."""
    async with opened(serve) as (running, ring):
        key = await make(ring, expires_at_s=int(time.time()) + 3600)
        statuses = []
        stream = await trio.open_tcp_stream("127.0.0.1", running.port)
        async with stream:
            client = Client(stream)
            asked = get("/v1/models", f"authorization: Bearer {key}")
            for step in ("open", "open", "expired", "revoked"):
                if step == "expired":
                    Wall(ring).move(3601)
                elif step == "revoked":
                    Wall(ring).move(-3601)
                    await ring.revoke("ci")
                await stream.send_all(asked)
                statuses.append((await client.answer()).status)
                if statuses[-1] == 401:
                    await stream.aclose()
                    stream = await trio.open_tcp_stream("127.0.0.1", running.port)
                    client = Client(stream)
            await stream.aclose()
    assert statuses == [200, 200, 401, 401]


async def test_a_rotated_secret_opens_until_its_grace_is_over(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        old = await make(ring)
        new = (await ring.rotate("ci", grace_s=60)).secret.reveal()
        both = [(await ask(running.port, each)).status for each in (old, new)]
        Wall(ring).move(61)
        later = [(await ask(running.port, each)).status for each in (old, new)]
    assert (both, later) == ([200, 200], [401, 200])


async def test_what_belongs_to_a_key_stays_when_its_secret_changes(
    serve: Serve,
) -> None:
    options = {"responses": True}
    async with (
        provider("openai", Happy(), Happy(), options=options) as (_, deployment),
        opened(serve, deployment) as (running, ring),
    ):
        old, other = await make(ring), await make(ring, "other")
        members = {"model": "m", "input": "hi"}

        async def respond(key: str, **more: Any) -> Answer:
            return await request(
                running.port,
                "POST",
                "/v1/responses",
                json.dumps({**members, **more}).encode(),
                authorization=f"Bearer {key}",
            )

        first = (await respond(old)).json["id"]
        new = (await ring.rotate("ci", grace_s=0)).secret.reveal()
        refused = await respond(other, previous_response_id=first)
        goes_on = await respond(new, previous_response_id=first)
    assert (refused.status, goes_on.status) == (400, 200)


# --- what it may do ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "members", "status", "kind"),
    [
        ("POST", "/v1/chat/completions", {}, 403, "model_not_found"),
        ("POST", "/v1/completions", {"prompt": "x"}, 403, "model_not_found"),
        ("POST", "/v1/responses", {"input": "x"}, 403, "model_not_found"),
        ("POST", "/v1/embeddings", {"input": "x"}, 403, "model_not_found"),
        ("POST", "/v1/messages", {"max_tokens": 5}, 403, "permission_error"),
        ("POST", "/v1/messages/count_tokens", {}, 403, "permission_error"),
        ("POST", "/v1beta/models/{m}:generateContent", {}, 403, "PERMISSION_DENIED"),
        ("POST", "/v1beta/models/{m}:countTokens", {}, 403, "PERMISSION_DENIED"),
        ("POST", "/v1beta/models/{m}:embedContent", {}, 403, "PERMISSION_DENIED"),
        ("GET", "/v1/models/{m}", {}, 403, "model_not_found"),
        ("GET", "/v1beta/models/{m}", {}, 403, "PERMISSION_DENIED"),
    ],
)
async def test_a_model_that_a_key_may_not_use_is_refused_on_each_route(
    serve: Serve, method: str, path: str, members: Any, status: int, kind: str
) -> None:
    said = {"role": "user", "content": "x"}
    part = {"role": "user", "parts": [{"text": "x"}]}
    if "Content" in path or "countTokens" in path:
        members = {"content": part} if "embed" in path else {"contents": [part]}
    elif not members or "max_tokens" in members:
        members = {"messages": [said], **members}
    async with opened(serve) as (running, ring):
        key = await make(ring, models=("m", "gpt-6*"))
        for model in ("other", "gpt-5", "nobody-serves-this"):
            body = json.dumps({"model": model, **members}).encode()
            answer = await request(
                running.port,
                method,
                path.format(m=model),
                body if method == "POST" else b"",
                authorization=f"Bearer {key}",
            )
            assert answer.status == status, answer.body
            error = answer.json["error"]
            assert kind in {error.get("code"), error.get("type"), error.get("status")}
            assert error["message"] == (
                f"the virtual key 'ci' may not use the model '{model}'; "
                "it may use 'm', 'gpt-6*'"
            )


async def test_a_key_with_models_hears_nothing_of_others(serve: Serve) -> None:
    async with opened(serve) as (running, ring):
        key = await make(ring, models=("claude-*",))
        answer = await ask(running.port, key, "claude-9")
        everything = await make(ring, "all")
        told = await ask(running.port, everything, "claude-9")
    assert answer.status == 404
    message = answer.json["error"]["message"]
    assert message == "the model does not exist"
    assert "'gpt-*'" in told.json["error"]["message"]


@pytest.mark.parametrize(
    ("path", "headers", "names"),
    [
        ("/v1/models", {}, lambda body: [each["id"] for each in body["data"]]),
        (
            "/v1/models",
            {"anthropic_version": "2023-06-01"},
            lambda body: [each["id"] for each in body["data"]],
        ),
        (
            "/v1beta/models",
            {},
            lambda body: [each["name"].split("/", 1)[1] for each in body["models"]],
        ),
        ("/", {}, lambda body: body["models"]),
    ],
    ids=["openai", "anthropic", "gemini", "index"],
)
async def test_a_list_of_models_has_those_that_the_key_may_use(
    serve: Serve, path: str, headers: Any, names: Any
) -> None:
    async with opened(serve) as (running, ring):
        found = []
        for name, models in (("all", ()), ("some", ("m", "gpt-6")), ("none", ("x",))):
            key = await make(ring, name, models=models)
            answer = await request(
                running.port, "GET", path, authorization=f"Bearer {key}", **headers
            )
            found.append(names(answer.json))
    assert found == [["m", "other", "gpt-*"], ["m", "gpt-6"], []]


async def test_a_virtual_key_is_no_key_for_an_upstream(serve: Serve) -> None:
    async with open_openai_upstream() as upstream:
        theirs = Deployment(
            name="m",
            runtime="openai",
            credential=HeaderSecret("authorization"),
            options={"endpoint": upstream.base_url},
        )
        async with opened(serve, theirs) as (running, ring):
            key, old = await make(ring), await make(ring, "old")
            await ring.revoke("old")
            for bearer in (key, old, "their-own", NEVER):
                more = {"x_api_key": key, "authorization": f"Bearer {bearer}"}
                path = "/v1/chat/completions"
                await request(running.port, "POST", path, chat_body(), **more)
    assert [each.headers["authorization"] for each in upstream.requests] == [
        "Bearer their-own",
        f"Bearer {NEVER}",
    ], "one that is not known may be of a gateway behind this one"


# --- a node that has just started ---------------------------------------------------


async def test_who_may_not_have_heard_of_a_key_yet_does_not_refuse_it_for_good(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(serve) as (running, ring):
        key = await make(ring)
        monkeypatch.setattr(ring._hearing, "_is_over", False)
        monkeypatch.setattr(ring._hearing, "_others", lambda: ("elsewhere",))
        monkeypatch.setattr(ring._hearing, "_began_at_s", trio.current_time() + 60)
        unknown, mistyped = (
            await ask(running.port, NEVER),
            await ask(running.port, NEVER[:-1]),
        )
        known = await ask(running.port, key)
        new = await request(running.port, "GET", "/readyz")
        anthropic = await request(
            running.port, "POST", "/v1/messages", b"{}", x_api_key=NEVER
        )
        monkeypatch.setattr(ring._hearing, "_began_at_s", trio.current_time() - 60)
        settled = await ask(running.port, NEVER)
        ready = await request(running.port, "GET", "/readyz")
    assert (new.status, new.json["ready"]) == (503, False)
    assert new.json["waits_for"] == ["the virtual keys of other nodes"]
    assert (ready.status, "waits_for" in ready.json) == (200, False)
    assert (unknown.status, unknown.headers["retry-after"]) == (503, "1")
    assert unknown.json["error"]["code"] == "not_ready"
    assert (anthropic.status, anthropic.json["error"]["type"]) == (
        503,
        "overloaded_error",
    )
    assert (mistyped.status, known.status, settled.status) == (401, 200, 401)


def test_a_node_without_others_has_heard_of_all_keys() -> None:
    assert not KeyRing(Replicator()).is_newcomer
