"""A node of a cluster whose provider refuses the key."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest
import trio

from atomr_infer.errors import NotReadyError, UpstreamAuthError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import EnvSecret
from atomr_infer.serving.replicas.key_check import KEY_REFUSED
from tests.serving.lab import PLUGIN, LabPlugin, Provider
from tests.serving.placing.world import open_places

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from importlib.metadata import Distribution

    from atomr_infer.errors import InferenceError

REFUSED = UpstreamAuthError("no such key", status=401)
WHY = "the provider refuses the key from the environment variable KEY: no such key"
WANTED = Deployment(name="m", runtime="lab", credential=EnvSecret("KEY"))


@pytest.fixture
def lab(
    lab_installed: Callable[[], Iterator[Distribution]],
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[], Iterator[Distribution]]:
    for field in attrs.fields(LabPlugin):
        monkeypatch.setattr(PLUGIN, field.name, getattr(LabPlugin(), field.name))
    return lab_installed


async def test_a_deployment_whose_key_is_refused_everywhere_is_not_taken(
    autojump_clock: object, lab: Callable[[], Iterator[Distribution]]
) -> None:
    PLUGIN.plan.extend([Provider(*[REFUSED] * 9), Provider(*[REFUSED] * 9)])
    async with open_places() as places:
        places.installed, places.environ["KEY"] = lab, "sk-1"
        await places.start("a")
        with pytest.raises(NotReadyError, match=f"m cannot be served: a: {WHY}"):
            await places["a"].orders.deploy(WANTED)
        await places.until(lambda: not places.runs, within_s=10)


async def test_it_is_shown_and_serves_when_another_key_is_there(
    autojump_clock: object, lab: Callable[[], Iterator[Distribution]]
) -> None:
    provider = Provider(*[REFUSED] * 4)
    PLUGIN.plan.extend([provider])
    noted: list[tuple[str, str, str | None]] = []

    def note(name: str, error: InferenceError) -> None:
        noted.append((name, error.message, error.code))

    async with open_places() as places:
        places.installed, places.environ["KEY"] = lab, "sk-1"
        await places.start("a")
        place = places["a"]
        with trio.fail_after(20):
            # As `serve` starts: its own share is as far as it can be.
            place.orders.declare([WANTED])
            await place.orders.await_here(["m"], lambda *_: None, note)
        # Who is strict ends here.
        assert noted == [("m", WHY, KEY_REFUSED)]
        await places.until(lambda: place.state("m") == "failed", within_s=5)
        [status] = place.orders.statuses()
        assert status.reason == f"a: {WHY}"
        # Failed again and again, and still the same runner: nothing was started anew.
        await trio.sleep(60)
        assert (PLUGIN.opened, PLUGIN.closed) == (1, 0)
        assert place.state("m") == "failed"
        places.environ["KEY"] = "sk-2"
        await trio.sleep(3)
        assert len(provider.asked_at) == 5
        await places.until(lambda: place.state("m") == "serving", within_s=1)
        assert place.orders.statuses()[0].reason == ""
        await trio.sleep(30)
        assert (PLUGIN.opened, PLUGIN.closed) == (1, 0)


async def test_what_waits_for_a_key_can_be_changed_and_removed(
    autojump_clock: object, lab: Callable[[], Iterator[Distribution]]
) -> None:
    PLUGIN.plan.extend([Provider(*[REFUSED] * 99), Provider()])
    async with open_places() as places:
        places.installed, places.environ["KEY"] = lab, "sk-1"
        places.environ["NEW"] = "sk-2"
        await places.start("a")
        place = places["a"]
        place.orders.declare([WANTED])
        await places.until(lambda: place.state("m") == "failed", within_s=20)
        await place.orders.replace(attrs.evolve(WANTED, credential=EnvSecret("NEW")))
        assert place.state("m") == "serving"
        PLUGIN.plan.append(Provider(*[REFUSED] * 99))
        await place.orders.undeploy("m")
        place.orders.declare([attrs.evolve(WANTED, name="n")])
        await places.until(lambda: place.state("n") == "failed", within_s=20)
        await place.orders.undeploy("n")
        await places.until(lambda: not places.runs, within_s=10)
