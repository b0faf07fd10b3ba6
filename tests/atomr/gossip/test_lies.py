"""Members that lie: frames that decode, and say what cannot be, break no machine.

A tenth of all frames are changed on their way: a number becomes another one, a name
somebody else's, a list longer or shorter.  What still decodes arrives.  Nobody asks
that what comes of it is right, as members are trusted; it has to be no exception.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial
from typing import Any, TypeAlias

import msgspec
import pytest

from atomr.gossip import escrow, ledger, voting
from atomr.gossip.ledger import Budget
from atomr.gossip.voting import Terms
from atomr.testing.simulation import Codec, Simulation
from tests.atomr.gossip import budget_world, limit_world, replication_world
from tests.atomr.gossip.escrow_scenarios import _limit, _load
from tests.atomr.gossip.ledger_scenarios import _calls
from tests.atomr.gossip.membership import simulated
from tests.atomr.gossip.replication_scenarios import small_world, write_at_random
from tests.atomr.gossip.voting import voting_world

Machine: TypeAlias = Callable[[Simulation], Codec]

NUMBERS = (0, 1, 2**31, 2**53 - 1, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -1, -(2**63))
WORDS = ("", "a", "n0", "n1", "x" * 300, b"", b"\xc1", b"\xa1\x80")
OTHERS: tuple[Any, ...] = (
    1.5,
    float("inf"),
    float("-inf"),
    float("nan"),
    None,
    True,
    [],
    {},
)


def lied(value: Any, draw: random.Random) -> Any:
    """Return a value with one thing in it changed."""
    if isinstance(value, list) and value and draw.random() < 0.85:
        return _lied_list(list(value), draw)
    if isinstance(value, dict) and value and draw.random() < 0.85:
        key = draw.choice(list(value))
        return {**value, key: lied(value[key], draw)}
    if type(value) is int and draw.random() < 0.6:
        return value + draw.choice((-1, 1, 2, 10, 1_000, 10**6, 10**12))
    return draw.choice((*NUMBERS, *WORDS, *OTHERS))


def _lied_list(value: list[Any], draw: random.Random) -> list[Any]:
    at = draw.randrange(len(value))
    match draw.randrange(8):
        case 0:
            value.append(draw.choice(value))
        case 1:
            del value[at]
        case _:
            value[at] = lied(value[at], draw)
    return value


def lying(codec: Codec, draw: random.Random, told: list[bytes]) -> Codec:
    """Return a codec that changes some of what it encodes, if it still decodes."""

    def encode(message: Any) -> bytes:
        content = codec.encode(message)
        if draw.random() < 0.9:
            return content
        try:
            frame = msgspec.msgpack.decode(content)
            for _ in range(20):
                changed = msgspec.msgpack.encode(lied(frame, draw))
                if _decodes(codec, changed):
                    told.append(changed)
                    return changed
        except OverflowError:
            return content
        return content

    return Codec(encode, codec.decode)


def _decodes(codec: Codec, content: bytes) -> bool:
    try:
        codec.decode(content)
    except Exception:  # noqa: BLE001 - whatever its decoder refuses is no lie
        return False
    return True


def replication(simulation: Simulation) -> Codec:
    world = small_world(simulation.random)
    replication_world.add_nodes(simulation, world, 3)
    write_at_random(simulation, 30, 2.0)
    return replication_world.CODEC


def membership(simulation: Simulation) -> Codec:
    names = simulated.names_of(5)
    for name in names:
        make = partial(simulated.Node, seeds=names, cluster=1)
        simulation.add_node(name, make)
    for at_s, name in enumerate(names[:3]):
        simulation.at(3.0 + at_s, partial(simulation.restart, name))
    return simulated.CODEC


def limits(simulation: Simulation) -> Codec:
    limit = _limit(simulation)
    world = limit_world.World(simulation, limit)
    world.add(*limit.voters)
    _load(world, 8.0, tokens=True)
    return limit_world.CODEC


def budgets(simulation: Simulation) -> Codec:
    world = budget_world.World(simulation, Budget("team", ("a", "b", "c")))
    world.add("a", "b", "c")
    simulation.at(0.2, lambda: world.mint("a", 10**6))
    simulation.at(0.4, lambda: _calls(world, within_s=6.0, number=100))
    simulation.at(3.0, lambda: world.crash("b", lose_disk=True))
    simulation.at(3.1, lambda: simulation.start("b"))
    simulation.at(4.0, lambda: world.reclaim("c", *world.lost))
    return budget_world.CODEC


class Elections(voting_world.World):
    """Elections of which nothing is asked: voters that lie can elect two."""

    def check(self, _: str) -> None:
        pass

    def act(self, _: voting_world.Node) -> None:
        pass


def votes(simulation: Simulation) -> Codec:
    world = Elections(
        simulation,
        Terms("billing", ("a", "b", "c"), lease_s=0.6, stop_s=0.1),
        candidates=("a", "b", "c"),
        stops_within_s=0.05,
    )
    world.add("a", "b", "c")
    simulation.at(4.0, partial(simulation.restart, "a"))
    return voting_world.CODEC


def test_text_that_is_none_is_no_frame() -> None:
    for codec, frame in (
        (limit_world.CODEC, escrow.frames.Closed("name", 1, 2)),
        (budget_world.CODEC, ledger.frames.Need("name", "a/1", 1, 2, 3)),
        (voting_world.CODEC, voting.frames.Poll("name", 1, 2, 3)),
    ):
        content = codec.encode(frame)
        with pytest.raises(msgspec.DecodeError, match=r"(?i)utf-8"):
            codec.decode(content.replace(b"name", b"\xff" * 4))


def run(machine: Machine, seed: int) -> int:
    """Run one, and return how many lies were told."""
    simulation, told = Simulation(seed), list[bytes]()
    codec = machine(simulation)
    simulation.use_codec(lying(codec, random.Random(seed), told))
    simulation.start()
    simulation.run(8.0)
    return len(told)


MACHINES = (replication, membership, limits, budgets, votes)


@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_a_lie_breaks_no_machine(machine: Machine) -> None:
    assert sum(run(machine, seed) for seed in range(3)) > 30


@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES, ids=lambda machine: machine.__name__)
def test_no_lie_of_thousands_breaks_a_machine(machine: Machine) -> None:
    assert sum(run(machine, seed) for seed in range(100)) > 1_000
