"""What operators ask of a cluster's deployments, on any of its nodes.

Asking is writing into the catalogue, once it is certain that what is written can
work; then every node does its share by itself.  Who waits looks on until all that
shall run serves, or cannot.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import attrs
import trio

from atomr.cluster.replicator import NotReplicatingError
from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.errors import ConfigError, InferenceError, NotReadyError, PluginError
from atomr_infer.policy.lifecycle.colocation import colocation_problem
from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.policy.routing.model_table import ModelTable
from atomr_infer.runtimes.contract import HasEndpoint
from atomr_infer.runtimes.loader import plugin_name
from atomr_infer.serving.placing.leaving import goes, mine, moves
from atomr_infer.serving.placing.own_file import AtOnce, OwnFile
from atomr_infer.serving.placing.records import digest_of
from atomr_infer.serving.placing.status import cluster_status
from atomr_infer.serving.replicas.key_check import key_refusal

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.policy.lifecycle.placement import Placed
    from atomr_infer.serving.deployments.sources import Sources
    from atomr_infer.serving.placing.catalogue import Catalogue
    from atomr_infer.serving.placing.leaving import Move
    from atomr_infer.serving.placing.own_file import Swaps
    from atomr_infer.serving.placing.picture import Picture
    from atomr_infer.serving.placing.placer import Placer
    from atomr_infer.serving.placing.records import Facts
    from atomr_infer.serving.placing.status import DeploymentStatus
    from atomr_infer.serving.replicas.replica import ReplicaState
    from atomr_infer.serving.shared import Serving

    Progress = Callable[[ReplicaState], None]
    _Shown = Callable[[str, ReplicaState], None]
    _Failed = Callable[[str, InferenceError], None]

log = logging.getLogger(__name__)

_LOOK_EVERY_S = 0.1


class Orders:
    """Deploys, changes, scales, removes and tells, for the whole cluster."""

    def __init__(
        self, serving: Serving, catalogue: Catalogue, placer: Placer, sources: Sources
    ) -> None:
        self._serving = serving
        self._catalogue = catalogue
        self._placer = placer
        self._sources = sources

    def picture(self) -> Picture:
        """Return what this node knows of all deployments now.

        Raises:
            NotReadyError: it knows nothing for a moment.
        """
        try:
            return self._catalogue.draw(trio.current_time())
        except NotReplicatingError as error:
            raise NotReadyError(
                "the node's replicated values are away for a moment; try again"
            ) from error

    def nodes(self) -> Mapping[str, Facts]:
        """Return what each node is that may be counted on, by name."""
        return self.picture().facts

    def statuses(self) -> tuple[DeploymentStatus, ...]:
        """Return all deployments of the cluster, by name."""
        picture = self.picture()
        concurrent = {
            name: self._catalogue.conflicts(name) for name in picture.catalogue
        }
        return cluster_status(picture, concurrent, self._serving.limits.problems)

    async def deploy(
        self,
        deployment: Deployment,
        *,
        progress: Progress | None = None,
        expected: Iterable[str] = (),
        wait: bool = True,
    ) -> None:
        """Have the cluster serve a deployment.

        Args:
            deployment: what to serve.
            progress: called about ten times a second with each replica that loads
                on this node.
            expected: names of deployments that will come.
            wait: until all that shall run serves, or has failed.

        Raises:
            ConfigError: it cannot work as written, or no node can run it; it is not
                in the catalogue.
            NotReadyError: it failed on all nodes that tried; it was removed again.

        Cancellation: removes it again.
        """
        name = deployment.name
        picture = self.picture()
        if name in picture.catalogue:
            raise ConfigError(f"deployment {name!r} exists already; names are unique")
        self._check(deployment, picture, frozenset(expected))
        digest = self._put(deployment, picture)
        if not wait:
            return
        try:
            await self._await(name, digest, progress)
        except BaseException:
            entry = self._catalogue.entry(name)
            if entry is not None and entry.digest == digest:
                self._catalogue.remove(name)
            raise

    async def replace(
        self,
        *deployments: Deployment,
        expected: Iterable[str] = (),
        wait: bool = True,
    ) -> None:
        """Have the cluster serve others under names that it serves.

        Args:
            deployments: the other ones.
            expected: names of those that come together with them.
            wait: until all that shall run serves, or has failed.

        Raises:
            ConfigError: there is none of a name, or one cannot work as written;
                nothing was changed.
            NotReadyError: one failed on all nodes that tried; it is in the catalogue
                all the same, and where it could not be changed the old one serves on.
        """
        picture = self.picture()
        names = frozenset(expected) | {deployment.name for deployment in deployments}
        for deployment in deployments:
            self._known(deployment.name, picture)
            self._check(deployment, picture, names)
        digests = {each.name: self._put(each, picture) for each in deployments}
        for name, digest in digests.items() if wait else ():
            await self._await(name, digest, None)

    async def change(self, deployment: Deployment) -> None:
        """Have the cluster serve another; raises as :meth:`replace`."""
        await self.replace(deployment)

    async def scale(self, name: str, replicas: int, *, wait: bool = True) -> None:
        """Have so many replicas of a deployment run.

        Raises:
            ConfigError: there is no deployment of that name, or no such number.
            NotReadyError: as :meth:`replace` does.
        """
        now = self._known(name, self.picture())
        try:
            serving = attrs.evolve(now.serving, replicas=replicas)
        except ValueError as error:
            raise ConfigError(f"deployment {name!r}: {error}") from error
        await self.replace(attrs.evolve(now, serving=serving), wait=wait)

    async def undeploy(
        self, name: str, *, wait: bool = True, drain_s: float = 0.0
    ) -> bool:
        """Have a deployment removed; its running requests may end.

        Args:
            name: the deployment's.
            wait: until the last of its requests has ended, on all nodes.
            drain_s: without effect: a request takes at most its ``total_s``.

        Returns:
            False when there is no deployment of that name.
        """
        if not self._catalogue.remove(name):
            return False
        while wait and self.picture().state(name) is not State.STOPPED:
            await self._news()
        return True

    def begin_leaving(self) -> tuple[Move, ...]:
        """Tell all nodes that this one is about to go; :meth:`stay` is the way back.

        Returns:
            What becomes of what runs here; nothing while that cannot be known.
        """
        try:
            self._placer.leave()
            return moves(self.picture())
        except (NotReplicatingError, NotReadyError):
            log.warning("the replicator is away: nobody takes over from this node")
            return ()

    def stay(self) -> None:
        """Tell all nodes that this one does not go; what others have, they keep."""
        try:
            self._placer.stay()
        except NotReplicatingError:
            log.info("the replicator is away; all nodes are told when it is back")

    async def leave(self) -> None:
        """Have other nodes take over, and wait until what they can take has ended here.

        What no other node can run stays, and is not waited for.
        """
        self.begin_leaving()
        try:
            while any(self.goes(name) for name in mine(self.picture())):
                await self._news()
        except NotReadyError:
            log.warning("the replicator is away: nobody takes over from this node")

    def goes(self, name: str) -> bool:
        """Whether a replica runs here that another node takes over, or that ends.

        Raises:
            NotReadyError: nobody knows for a moment.
        """
        return goes(name, self.picture())

    # --- a node's file ----------------------------------------------------------------

    async def meet(self) -> None:
        """Wait until it is known who else is there and what they serve, some seconds.

        A file that is declared before would be news to all, however old it is.
        """
        while not self._placer.has_met:
            await self._news()

    def declare(
        self,
        deployments: Iterable[Deployment],
        *,
        swaps: Swaps | None = None,
        at_start: bool = False,
    ) -> tuple[str, ...]:
        """Have the deployments of this node's file served, and no more those of before.

        What the catalogue has gone on from since the file was written stays as the
        catalogue has it, when the file is declared for the first time.

        Args:
            deployments: what stands in the file.
            swaps: those that take over step by step; None: each is exchanged at once.
            at_start: whether the node has just started: its file may be an old one.

        Returns:
            What was done or left, one sentence for each deployment that is concerned.

        Raises:
            ConfigError: one of them cannot work as written; nothing was changed.
        """
        wanted = {deployment.name: deployment for deployment in deployments}
        picture = self.picture()
        for deployment in wanted.values():
            self._check(deployment, picture, frozenset(wanted))
        file = OwnFile(
            self._catalogue,
            picture,
            is_remote=self._is_remote,
            is_client=self._sources.is_client,
            swaps=swaps or AtOnce(),
            at_start=at_start,
        )
        return file.put(wanted)

    async def await_here(
        self, names: Iterable[str], progress: _Shown, failed: _Failed
    ) -> None:
        """Wait until this node's share serves, waits for a key, or is told to fail."""
        left = set(names)
        while left:
            picture = self.picture()
            for name in sorted(left):
                for replica in self._serving.replicas(name):
                    progress(name, replica)
                if self._is_done_here(name, picture, failed):
                    left.discard(name)
            await self._news()

    def _is_done_here(self, name: str, picture: Picture, failed: _Failed) -> bool:
        if name not in picture.catalogue:
            return True
        if (refusal := key_refusal(self._serving, name)) is not None:
            failed(name, refusal)
            return True
        claim = picture.claims.get(name, {}).get(picture.me)
        if claim is not None and claim.digest == picture.catalogue[name].entry.digest:
            if claim.state is State.FAILED:
                told = f"{name} cannot be served here: {claim.reason}"
                failed(name, NotReadyError(told))
                return True
            return claim.state is State.SERVING
        return self._placer.has_met and not picture.share(name)

    # --- parts ---------------------------------------------------------------------

    def explain(self, deployment: Deployment) -> Placed:
        """Return where a deployment would run, and why not elsewhere; changes nothing.

        Raises:
            ConfigError: it cannot work as written.
        """
        picture = self.picture()
        remote = self._is_remote(deployment, picture)
        return picture.explained(deployment, remote=remote)

    async def _news(self) -> None:
        with trio.move_on_after(_LOOK_EVERY_S):
            await self._placer.looked.wait()

    def _known(self, name: str, picture: Picture) -> Deployment:
        known = picture.catalogue.get(name)
        if known is None:
            raise ConfigError(f"there is no deployment {name!r}")
        if known.deployment is None:
            raise ConfigError(known.problem)
        return known.deployment

    def _check(
        self, deployment: Deployment, picture: Picture, expected: frozenset[str]
    ) -> None:
        """Refuse what cannot work on any node, with a ConfigError."""
        deployment_table(deployment)
        others = {
            name: known.deployment
            for name, known in picture.catalogue.items()
            if known.deployment is not None and name != deployment.name
        }
        table = ModelTable(tuple(others.values()))
        table.with_deployment(deployment, expected=expected)
        beside = {name: other.placement.colocate_with for name, other in others.items()}
        # Those that come have no wishes yet: they are checked when it is their turn.
        beside |= {name: None for name in expected if name not in beside}
        beside[deployment.name] = deployment.placement.colocate_with
        problem = colocation_problem(deployment.name, beside)
        if problem is not None:
            raise ConfigError(f"deployment {deployment.name!r}: placement: {problem}")
        self._is_remote(deployment, picture)

    def _is_remote(self, deployment: Deployment, picture: Picture) -> bool:
        try:
            plugin = self._sources.plugin(deployment)
        except PluginError:
            runtimes = {name for f in picture.facts.values() for name in f.runtimes}
            if plugin_name(deployment.runtime) not in runtimes:
                raise
            return False  # what is not installed everywhere is a local engine
        return isinstance(plugin, HasEndpoint)

    def _put(self, deployment: Deployment, picture: Picture) -> str:
        table = deployment_table(deployment)
        self._catalogue.put(table, remote=self._is_remote(deployment, picture))
        return digest_of(table)

    async def _await(self, name: str, digest: str, progress: Progress | None) -> None:
        while True:
            picture = self.picture()
            known = picture.catalogue.get(name)
            if known is None or known.entry.digest != digest:
                raise NotReadyError(f"{name} was changed or removed meanwhile")
            if progress is not None:
                for replica in self._serving.replicas(name):
                    progress(replica)
            if self._is_done(name, picture):
                return
            await self._news()

    def _is_done(self, name: str, picture: Picture) -> bool:
        """Whether a deployment serves as far as it will.

        Raises:
            ConfigError: no node can run it.
            NotReadyError: it failed on all that tried.
        """
        state = picture.state(name)
        if state is State.PENDING and self._placer.has_met:
            raise ConfigError(
                f"deployment {name!r} cannot be placed: {picture.reason(name)}"
            )
        if state is State.FAILED:
            raise NotReadyError(f"{name} cannot be served: {picture.reason(name)}")
        return state is State.SERVING and picture.is_settled(name)
