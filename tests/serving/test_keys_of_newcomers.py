"""A node that has just started hears of keys, of secrets and of ends one by one."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

import trio

from atomr_infer.config.node import NodeConfig
from atomr_infer.model.virtual_key import KeySecret
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.node import make_node
from tests.gateway.http import until
from tests.serving.test_key_ring import is_open, open_ring, terms
from tests.serving.test_node import _Places

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 60


async def test_what_others_say_at_first_opens_when_they_have_said_all_of_it() -> None:
    async with open_ring() as (ring, wall):
        others: Any = ring
        others._has_others, others._settles_at_s = True, math.inf
        first, second = (terms(ring, name) for name in ("first", "second"))
        secrets = [
            KeySecret(digest=bytes([n]) * 32, key=key.id, shown="sk", created_at_s=0)
            for n, key in enumerate((first, second))
        ]

        def opens(secret: KeySecret) -> bool:
            standing = ring.find(secret.digest)
            return standing is not None and standing.is_open(wall.now_s)

        for key, secret in zip((first, second), secrets, strict=True):
            ring.facts.say_key(key)
            ring.facts.say_secret(secret)
        await until(lambda: len(ring.facts._held) == 2)
        assert not opens(secrets[0])
        ring.facts.say_revoked(first.id, 7)
        await until(lambda: opens(secrets[1]))
        assert not opens(secrets[0])


async def test_what_has_ended_opens_nothing_on_a_new_node_at_any_time(
    tmp_path: Path,
) -> None:
    places, environ = _Places(tmp_path), {"COOKIE": "a secret of all nodes"}
    async with AsyncExitStack() as stack:
        a = make_node(NodeConfig(name="a"), places.cluster(signed_as="a"), environ)
        here = (
            await stack.enter_async_context(open_serving(environ={}, node=a))
        ).key_ring
        revoked = [await here.create(terms(here, f"k{n}")) for n in range(KEYS)]
        rotated = [await here.create(terms(here, f"r{n}")) for n in range(KEYS)]
        for number in range(KEYS):
            await here.revoke(f"k{number}")
        news = [await here.rotate(f"r{n}", grace_s=0) for n in range(KEYS)]
        assert a.cluster is not None
        of_a = places.cluster(signed_as="b", seed=a.cluster.address)
        b = make_node(NodeConfig(name="b"), of_a, environ)
        there = (
            await stack.enter_async_context(open_serving(environ={}, node=b))
        ).key_ring
        with trio.fail_after(60):
            while not all(is_open(there, each) for each in news):
                assert not any(is_open(there, each) for each in revoked + rotated)
                await trio.lowlevel.checkpoint()
        assert not any(is_open(there, each) for each in revoked + rotated)
