"""A worker's place in ``serve --workers N``: which node it is, and what it was given.

A worker is a whole ``serve`` that its parent has started.  It does not bind: it
accepts from the parent's sockets, so that connections which wait there outlive it.
It is a node of the cluster that the workers make among them, over loopback.

It learns of its place by one variable, and tells the parent how far it is by a pipe.
"""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.config.node import ClusterConfig
from atomr_infer.model.placement import Role
from atomr_infer.model.secret import FileSecret

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.model.deployment import Deployment

VARIABLE = "ATOMR_INFER_WORKER"

CLUSTER = "workers"
"""The name of the cluster that the workers of one ``serve`` make."""

SEEDS = "seeds"
COOKIE = "cookie"
_RESPONSES = "responses.sqlite"


@attrs.frozen(kw_only=True)
class Seat:
    """One worker's place.

    Attributes:
        number: from 1 on.
        count: how many there are.
        name: of the node that they all are together.
        folder: with certificates, the cookie, and the other workers' addresses.
        sockets: descriptors of the sockets to accept from.
        told: descriptor of the pipe to the parent.
        alive: descriptor of a pipe that ends when the parent does.
    """

    number: int
    count: int
    name: str
    folder: str
    sockets: Sequence[int]
    told: int
    alive: int

    @property
    def node(self) -> str:
        """The name of the worker's own node."""
        return worker_name(self.name, self.number)

    def environment(self, environ: Mapping[str, str]) -> dict[str, str]:
        """Return the environment that the worker is started with."""
        return {**environ, VARIABLE: json.dumps(attrs.asdict(self))}

    def seated(self, plan: ServePlan) -> ServePlan:
        """Return what this worker serves, of what all do."""
        folder, node = Path(self.folder), plan.node
        state = node.state_dir
        own = attrs.evolve(
            node,
            name=self.node,
            state_dir=None if state is None else str(Path(state, self.node)),
            roles=node.roles if self.number == 1 else _without_gpu(node.roles),
        )
        store = plan.gateway.response_store or str(folder / _RESPONSES)
        return attrs.evolve(
            plan,
            deployments=tuple(map(_of_each_worker, plan.deployments)),
            node=own,
            cluster=self._cluster(folder),
            is_one_machine=True,
            gateway=attrs.evolve(plan.gateway, response_store=store),
        )

    def _cluster(self, folder: Path) -> ClusterConfig:
        numbers = range(1, self.count + 1)
        return ClusterConfig(
            name=CLUSTER,
            voters=tuple(worker_name(self.name, number) for number in numbers),
            cookie=FileSecret(str(folder / COOKIE)),
            ca=str(folder / "ca.pem"),
            certificate=str(folder / f"{self.node}.pem"),
            private_key=str(folder / f"{self.node}.key"),
            listen="127.0.0.1:0",
            seeds_file=str(folder / SEEDS),
        )

    @property
    def alive_file(self) -> Path:
        """The file that says when this worker ran last."""
        return Path(self.folder, f"{self.node}.alive")

    def take_sockets(self) -> tuple[socket.socket, ...]:
        """Return the sockets; to be called once."""
        return tuple(socket.socket(fileno=number) for number in self.sockets)

    def tell(self, news: Mapping[str, object]) -> None:
        """Tell the parent something; it may be gone."""
        line = json.dumps(news).encode() + b"\n"
        try:
            os.write(self.told, line)
        except BrokenPipeError:
            return  # then it is told by the other pipe, too

    async def end_with_parent(self) -> None:
        """Have this process end in order once the parent is gone; never returns."""
        await trio.lowlevel.wait_readable(self.alive)
        os.kill(os.getpid(), signal.SIGTERM)
        await trio.sleep_forever()


def take_seat(environ: MutableMapping[str, str]) -> Seat | None:
    """Return the place that this process was started for; None: it is no worker.

    What it starts itself does not inherit it.
    """
    text = environ.pop(VARIABLE, None)
    return None if text is None else Seat(**json.loads(text))


def worker_name(name: str, number: int) -> str:
    """Return a worker's node.

    >>> worker_name("ams", 2)
    'ams-2'
    """
    return f"{name}-{number}"


def _without_gpu(roles: tuple[str, ...]) -> tuple[str, ...]:
    """The machine's GPUs are there once: the first worker has them."""
    return tuple(role for role in roles if role != Role.GPU.value)


def _of_each_worker(deployment: Deployment) -> Deployment:
    """Return a deployment as each worker runs it, unless its file says otherwise.

    One that is killed then costs nobody an answer.
    """
    placement = deployment.placement
    if placement.everywhere is not None or placement.gpus:
        return deployment
    return attrs.evolve(deployment, placement=attrs.evolve(placement, everywhere=True))
