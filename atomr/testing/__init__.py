"""Testing processes: a node that leaves nothing, probes, virtual time, crashes.

::

    async def test_the_shop_mails_a_receipt() -> None:
        async with open_test_node() as node:
            mailer = Probe("mailer")
            shop = await node.start_supervised(Shop)
            cast(shop, Order("tea"))
            assert (await mailer.expect_cast(Mail)).subject == "your tea"

    run(test_the_shop_mails_a_receipt, seed=7)

Nothing here needs pytest; ``atomr.testing.pytest_plugin`` has fixtures for it.
"""

from atomr.testing.asserts import (
    assert_receive,
    assert_received,
    refute_receive,
    refute_received,
)
from atomr.testing.clocks import NoVirtualTimeError, advance, settle
from atomr.testing.crashes import ExpectedCrash, NoCrashError, UnexpectedCrashError
from atomr.testing.expecting import ExpectationError
from atomr.testing.faults import (
    Chaos,
    Fault,
    InjectedCrashError,
    Strike,
    crash,
    crash_next,
)
from atomr.testing.leftovers import LeftoverError
from atomr.testing.matching import ANYTHING, Pattern, equal_to, like
from atomr.testing.nodes import TestNode, open_test_node
from atomr.testing.probe import Probe, ProbeCall
from atomr.testing.schedules import (
    Exploration,
    NoScheduleError,
    Schedule,
    explore,
    run,
    seeded,
)

__all__ = [
    "ANYTHING",
    "Chaos",
    "ExpectationError",
    "ExpectedCrash",
    "Exploration",
    "Fault",
    "InjectedCrashError",
    "LeftoverError",
    "NoCrashError",
    "NoScheduleError",
    "NoVirtualTimeError",
    "Pattern",
    "Probe",
    "ProbeCall",
    "Schedule",
    "Strike",
    "TestNode",
    "UnexpectedCrashError",
    "advance",
    "assert_receive",
    "assert_received",
    "crash",
    "crash_next",
    "equal_to",
    "explore",
    "like",
    "open_test_node",
    "refute_receive",
    "refute_received",
    "run",
    "seeded",
    "settle",
]
