"""Virtual keys by the operators' routes, over real sockets."""

from __future__ import annotations

import json
import logging
import time
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from atomr.cluster.replicator.errors import ShardStoreError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from atomr_infer.model.team import Team
from tests.gateway.http import Answer, chat_body, request

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from tests.gateway.conftest import Running, Serve

ADMIN = "adm-0123456789"
MOCK = Deployment(name="m", runtime="mock")
NOT_STORED = (
    "this node has no state_dir under [node]: keys that no other node has are lost "
    "when it ends"
)


@asynccontextmanager
async def opened(serve: Serve, **settings: Any) -> AsyncIterator[Running]:
    settings = {"virtual_keys": True, **settings}
    async with serve(MOCK, admin_key=Secret(ADMIN), **settings) as running:
        yield running


async def admin(
    running: Running,
    method: str,
    path: str = "",
    body: bytes | None = None,
    **members: object,
) -> Answer:
    data = json.dumps(members).encode() if body is None else body
    return await request(
        running.port,
        method,
        f"/admin/keys{path}",
        data if method == "POST" else b"",
        authorization=f"Bearer {ADMIN}",
    )


async def opens(running: Running, key: str) -> bool:
    answer = await request(
        running.port, "POST", "/v1/chat/completions", chat_body(), x_api_key=key
    )
    return answer.status == 200


async def test_what_a_key_used_is_told_by_its_id_and_its_name(serve: Serve) -> None:
    async with opened(serve) as running:
        made = (await admin(running, "POST", name="ci")).json
        assert await opens(running, made["secret"])
        told = await request(
            running.port,
            "GET",
            "/admin/usage/key/0",
            authorization=f"Bearer {ADMIN}",
        )
    [line] = told.json["usage"]
    assert (line["name"], line["called"]) == (made["key"]["id"], "ci")


async def test_a_key_is_made_and_shown_once(serve: Serve) -> None:
    async with opened(serve) as running:
        running.cluster.key_ring.take_teams([Team(name="web")])
        before_s = int(time.time())
        answer = await admin(
            running,
            "POST",
            name="ci",
            team="web",
            models=["m", "gpt-*"],
            priority=3,
            weight=2.5,
            lifetime_s=3600,
        )
        assert (answer.status, answer.headers["cache-control"]) == (201, "no-store")
        secret, key = answer.json["secret"], answer.json["key"]
        assert await opens(running, secret)
        listed = (await admin(running, "GET")).json
    [made] = key["secrets"]
    assert before_s <= key["created_at_s"] == made["created_at_s"] <= time.time()
    assert key == {
        "id": key["id"],
        "name": "ci",
        "team": "web",
        "models": ["m", "gpt-*"],
        "priority": 3,
        "weight": 2.5,
        "created_at_s": key["created_at_s"],
        "expires_at_s": key["created_at_s"] + 3600,
        "rate_limits": None,
        "budgets": [],
        "state": "open",
        "revoked_at_s": None,
        "secrets": [
            {
                "shown": f"{secret[:13]}...",
                "created_at_s": made["created_at_s"],
                "is_open": True,
                "rotated": False,
                "ends_at_s": key["expires_at_s"],
            }
        ],
    }
    in_vain = "no model that is served here is called 'gpt-*'"
    assert answer.json["warnings"] == [NOT_STORED, in_vain]
    assert listed == {"keys": [key]}


async def test_a_key_is_rotated_and_revoked(serve: Serve) -> None:
    async with opened(serve) as running:
        old = (await admin(running, "POST", name="team/ci")).json["secret"]
        answer = await admin(running, "POST", "/team/ci/rotate", grace_s=60)
        new, key = answer.json["secret"], answer.json["key"]
        assert answer.headers["cache-control"] == "no-store"
        assert [each["rotated"] for each in key["secrets"]] in (
            [False, True],
            [True, False],
        )
        assert [await opens(running, each) for each in (old, new)] == [True, True]
        again = await admin(running, "POST", f"/{key['id']}/rotate", grace_s=0)
        newest = again.json["secret"]
        found = [await opens(running, each) for each in (old, new, newest)]
        assert found == [False, False, True]
        revoked = await admin(running, "POST", "/team/ci/revoke", b"")
        assert (revoked.status, revoked.json["key"]["state"]) == (200, "revoked")
        assert revoked.json["key"]["revoked_at_s"] <= time.time()
        assert not await opens(running, newest)
        [listed] = (await admin(running, "GET")).json["keys"]
    assert listed == revoked.json["key"]


async def test_a_day_of_an_hour_is_what_an_old_secret_keeps(serve: Serve) -> None:
    async with opened(serve) as running:
        await admin(running, "POST", name="ci")
        answer = await admin(running, "POST", "/ci/rotate", b"")
    ends = {
        each["rotated"]: each["ends_at_s"] for each in answer.json["key"]["secrets"]
    }
    assert ends[False] is None
    assert 3590 < ends[True] - time.time() <= 3600


async def test_a_model_that_nobody_serves_is_told_and_no_error(serve: Serve) -> None:
    async with opened(serve) as running:
        made = await admin(running, "POST", name="ci", models=["m", "mm"])
        changed = await change(running, "ci", models=["*", "m"])
    told = "no model that is served here is called 'mm'; did you mean 'm'?"
    assert made.json["warnings"] == [NOT_STORED, told]
    assert changed.json["warnings"] == [NOT_STORED]


async def test_where_they_are_not_taken_the_operator_is_told(serve: Serve) -> None:
    async with opened(serve, virtual_keys=False) as running:
        answer = await admin(running, "POST", name="ci")
    assert answer.json["warnings"][-1] == (
        "this node's gateway does not take virtual keys: write virtual_keys = true "
        "under [gateway]"
    )


async def test_the_log_says_who_did_what_and_no_secret(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        async with opened(serve) as running:
            secrets = [(await admin(running, "POST", name="ci")).json["secret"]]
            rotated = await admin(running, "POST", "/ci/rotate", grace_s=0)
            secrets.append(rotated.json["secret"])
            await admin(running, "POST", "/ci/revoke", b"")
            tree = await request(
                running.port, "GET", "/admin/tree", authorization=f"Bearer {ADMIN}"
            )
    for did in ("created", "rotated", "revoked"):
        assert f"admin at 127.0.0.1 {did} the virtual key key_" in caplog.text
    for secret in secrets:
        for text in (caplog.text, tree.body.decode()):
            assert secret not in text
            assert secret[9:20] not in text


@pytest.mark.parametrize(
    ("path", "body", "status", "code", "problem"),
    [
        ("", b"", 400, "missing_member", "name is missing"),
        ("", b"[]", 400, "invalid_json", "the body is no JSON object"),
        ("", b"{", 400, "invalid_json", "the body: Input data was truncated"),
        ("", b'{"nam":"x"}', 400, "unknown_member", "'nam'; did you mean 'name'?"),
        ("", b'{"name":"a b"}', 400, "invalid_value", "name: 'a b' is not a name"),
        ("", b'{"name":1}', 400, "invalid_value", "name: 1 is not a string"),
        (
            "",
            b'{"name":"x","models":[1]}',
            400,
            "invalid_value",
            "models: 1 is not a string",
        ),
        (
            "",
            b'{"name":"x","priority":101}',
            400,
            "invalid_value",
            "priority: 101 must be at most 100",
        ),
        (
            "",
            b'{"name":"x","weight":5e-324}',
            400,
            "invalid_value",
            "weight: 5e-324 must be from 0.001 to 1000",
        ),
        (
            "",
            b'{"name":"x","lifetime_s":1e300}',
            400,
            "invalid_value",
            "expires_at_s: a number of more than 30 digits must be at most",
        ),
        (
            "",
            b'{"name":"x","lifetime_s":1,"expires_at_s":5}',
            400,
            "invalid_value",
            "lifetime_s stands beside expires_at_s",
        ),
        ("", b'{"name":"x","id":"y"}', 400, "unknown_member", "unknown member 'id'"),
        ("", b'{"name":"x","team":"no"}', 400, "team_not_found", "no team 'no'"),
        ("", b'{"name":"taken"}', 409, "name_taken", "a key 'taken' already, key_"),
        ("/x/rotate", b"", 404, "key_not_found", "there is no virtual key 'x'"),
        ("/x/revoke", b"", 404, "key_not_found", "there is no virtual key 'x'"),
        (
            "/taken/rotate",
            b'{"grace_s":-1}',
            400,
            "invalid_value",
            "grace_s: -1 must be a number of 0 or more",
        ),
        ("/over/rotate", b"", 409, "key_over", "'over', key_"),
    ],
)
async def test_what_cannot_be_done_is_told(
    serve: Serve, path: str, body: bytes, status: int, code: str, problem: str
) -> None:
    async with opened(serve) as running:
        await admin(running, "POST", name="taken")
        await admin(running, "POST", name="over")
        await admin(running, "POST", "/over/revoke", b"")
        answer = await admin(running, "POST", path, body)
        after = (await admin(running, "GET")).json["keys"]
    error = answer.json["error"]
    assert (answer.status, error["code"]) == (status, code), error
    assert problem in error["message"]
    assert len(after) == 2


async def test_a_key_that_cannot_be_kept_is_not_shown(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(serve) as running:
        ring = running.cluster.key_ring

        async def full() -> bool:
            await trio.lowlevel.checkpoint()
            raise ShardStoreError(Path("values.sqlite"), "database or disk is full")

        monkeypatch.setattr(ring.facts._replicator, "store", object())
        monkeypatch.setattr(ring.facts._replicator, "sync", full)
        answer = await admin(running, "POST", name="ci")
    assert (answer.status, answer.json["error"]["code"]) == (503, "keys_not_kept")
    assert "disk is full" in answer.json["error"]["message"]


@pytest.mark.parametrize("path", ["", "/x/rotate", "/x/revoke"])
async def test_nothing_but_the_admin_key_opens_them(serve: Serve, path: str) -> None:
    async with opened(serve) as running:
        secret = (await admin(running, "POST", name="ci")).json["secret"]
        for shown in ({}, {"authorization": f"Bearer {secret}"}):
            for method in ("GET", "POST"):
                headers: Any = shown
                answer = await request(
                    running.port, method, f"/admin/keys{path}", b"", **headers
                )
                assert answer.status == 401


@pytest.mark.parametrize("path", ["", "/ci/rotate", "/ci/revoke"])
async def test_keys_are_made_on_one_node_for_all(serve: Serve, path: str) -> None:
    async with opened(serve) as running:
        secret = (await admin(running, "POST", name="ci")).json["secret"]
        answer = await admin(running, "POST", f"{path}?nodes=all")
        listed = await admin(running, "GET", "?nodes=all")
        assert await opens(running, secret)
    [refused] = answer.json["nodes"].values()
    assert (answer.status, refused["answer"]["error"]["code"]) == (400, "one_node")
    [shown] = listed.json["nodes"].values()
    assert [key["name"] for key in shown["answer"]["keys"]] == ["ci"]
    assert len(shown["answer"]["keys"][0]["secrets"]) == 1


async def change(running: Running, key: str, **members: object) -> Answer:
    body = json.dumps(members).encode()
    return await request(
        running.port,
        "PATCH",
        f"/admin/keys/{key}",
        body,
        authorization=f"Bearer {ADMIN}",
        content_length=str(len(body)),
    )


async def test_a_keys_terms_are_changed_and_its_secret_stays(serve: Serve) -> None:
    async with opened(serve) as running:
        made = (await admin(running, "POST", name="ci", models=["m"])).json
        secret = made["secret"]
        assert await opens(running, secret)
        answer = await change(
            running,
            "ci",
            models=["x"],
            priority=3,
            rate_limits={"requests_per_minute": 5, "on_exceeded": "reject"},
            budgets=[{"per": "day", "usd": "1"}],
            lifetime_s=60,
        )
        assert answer.status == 200, answer.json
        key = answer.json["key"]
        assert (key["id"], key["models"], key["priority"]) == (
            made["key"]["id"],
            ["x"],
            3,
        )
        assert key["budgets"] == [{"per": "day", "usd": "1"}]
        assert 55 <= key["expires_at_s"] - time.time() <= 61
        assert not await opens(running, secret)

        # What is not given stays, and limits are put beside those that it has.
        answer = await change(
            running, "ci", models=None, rate_limits={"max_concurrent": 1}
        )
        key = answer.json["key"]
        assert key["rate_limits"] == {
            "requests_per_minute": 5,
            "max_concurrent": 1,
            "on_exceeded": "reject",
        }
        assert (key["models"], key["priority"]) == ([], 3)
        answer = await change(running, "ci", rate_limits=None, budgets=None)
        assert answer.json["key"]["rate_limits"] is None
        assert await opens(running, secret)


async def test_a_key_that_has_expired_is_given_more_time(serve: Serve) -> None:
    async with opened(serve) as running:
        made = (await admin(running, "POST", name="ci", lifetime_s=0)).json
        assert not await opens(running, made["secret"])
        answer = await change(running, "ci", lifetime_s=60)
        assert (answer.status, answer.json["key"]["state"]) == (200, "open")
        assert await opens(running, made["secret"])


WRONG_CHANGES: list[tuple[dict[str, object], int, str]] = [
    ({"priority": 1000}, 400, "invalid_value"),
    ({"name": "b"}, 400, "unknown_member"),
    ({"rate_limits": {"requests_per_minute": 0}}, 400, "invalid_value"),
    ({"team": "no"}, 400, "team_not_found"),
    ({}, 400, "missing_member"),
    ({"lifetime_s": 5, "expires_at_s": 5}, 400, "invalid_value"),
]


async def test_a_change_that_cannot_be_changes_nothing(serve: Serve) -> None:
    async with opened(serve) as running:
        made = (await admin(running, "POST", name="ci")).json["key"]
        for members, status, code in WRONG_CHANGES:
            answer = await change(running, "ci", **members)
            assert (answer.status, answer.json["error"]["code"]) == (status, code)
        [key] = (await admin(running, "GET")).json["keys"]
        assert key == made
        assert (await change(running, "x", priority=1)).status == 404
        await admin(running, "POST", "/ci/revoke")
        answer = await change(running, made["id"], priority=1)
        assert (answer.status, answer.json["error"]["code"]) == (409, "key_over")
