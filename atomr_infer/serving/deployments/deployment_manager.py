"""The deployment manager: starts, changes and stops deployments, one at a time.

Deploying is checked from cheap to dear: names, then the runtime's own
validation, then what it needs to be installed, then the credential; only then
does a tree start.  What may go wrong comes back to the caller as an error
value, so that a mistake in one deployment does not restart the manager.

What takes long is done by who asks for it: opening the engines of a deployment that
is replaced (:mod:`~atomr_infer.serving.deployments.replacing`), and waiting for the end
of one that drains.
"""

from __future__ import annotations

import logging
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr.core.messages import Down
from atomr.errors import AtomrError, ChildNotFoundError
from atomr.otp import (
    From,
    GenServer,
    NoReply,
    Reply,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import demonitor, monitor
from atomr.refs import Pid, Ref
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.model.deployment import changes_while_serving
from atomr_infer.policy.lifecycle.replaced import keeps_engine
from atomr_infer.serving.deployments.deployment_tree import deployment_spec
from atomr_infer.serving.deployments.reshaping import Reshaping
from atomr_infer.serving.deployments.sources import Sources
from atomr_infer.serving.names import DEPLOYMENTS
from atomr_infer.serving.replicas import messages
from atomr_infer.serving.replicas.blueprint import Blueprint
from atomr_infer.serving.replicas.rebuild import Commit, Rebuild, Replace
from atomr_infer.serving.replicas.routing_table import RoutingTable
from atomr_infer.serving.requests.elsewhere import here, table_with

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.loader import Installed
    from atomr_infer.serving.replicas.engine_context import EngineSource
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class _Tree:
    """A deployment's running tree."""

    pid: Pid
    monitor: Ref


@attrs.define(eq=False)
class _Draining:
    """A deployment that nobody is routed to any more.

    Attributes:
        tree: what is ended with the last of its requests.
        busy: the engine cores of which nobody has said that they are idle.
        asked: who waits for its end.
    """

    tree: _Tree
    busy: dict[Pid, Ref]
    asked: list[From]


class DeploymentManager(GenServer):
    """Keeps the model table true to what runs."""

    def __init__(
        self, serving: Serving, environ: Mapping[str, str], installed: Installed
    ) -> None:
        self._serving = serving
        self._sources = Sources(environ, installed, serving)
        self._trees: dict[str, _Tree] = {}
        self._draining: dict[str, _Draining] = {}
        self._reshaping = Reshaping()

    async def init(self) -> None:
        """Take over what runs already: this may be a restart."""
        known = here(self._serving)
        self._serving.draining = frozenset()
        for child in await which_children(DEPLOYMENTS):
            if child.pid is None:
                continue
            if child.id in known:
                self._watch(child.id, child.pid)
            else:
                # The last manager ended in the middle of an undeploy or a drain.
                await _end_tree(child.pid)
        for name in known:
            tree = self._trees.get(name)
            if tree is None:
                self._failed(name, "its tree ended unseen")
            else:
                blueprint = self._serving.blueprint(name)
                await self._reshaping.reshape(tree.pid, blueprint)

    def format_status(self) -> object:
        """Show the deployments; the environment holds secrets."""
        return {
            "deployments": sorted(self._trees),
            "draining": sorted(self._draining),
        }

    async def handle_call(self, request: object, from_: From) -> Reply | NoReply:
        """Answer what changes a deployment."""
        match request:
            case messages.Deploy():
                return Reply(await self._deploy(request))
            case messages.Change(deployment=deployment):
                return Reply(self._change(deployment))
            case Replace():
                return Reply(self._replace(request))
            case Commit():
                return Reply(await self._commit(request))
            case messages.Drain(name=name):
                return await self._drain(name, from_)
            case messages.Undeploy(name=name, only=only):
                return Reply(await self._undeploy(name, only))
            case _:
                raise TypeError(f"the manager does not know the request {request!r}")

    async def handle_cast(self, message: object) -> None:
        """Take the news that nobody is on a replica that was told to retire."""
        match message:
            case messages.ReplicaIdle(core=core, deployment=name, number=number):
                await self._reshaping.idle(name, number)
                await self._idle(core)
            case _:
                raise TypeError(f"the manager does not know the message {message!r}")

    async def handle_info(self, message: object) -> None:
        """Take the end of a deployment's tree, of a replica or of a context."""
        if not isinstance(message, Down):
            super().handle_info(message)
            return
        for name, tree in self._trees.items():
            if tree.monitor is message.ref:
                del self._trees[name]
                self._failed(name, message.reason)
                return
        if not await self._reshaping.ended(message.ref):
            await self._ended_draining(message.ref)

    # --- new ones ------------------------------------------------------------------

    async def _deploy(self, asked: messages.Deploy) -> AtomrError | None:
        deployment, expected = asked.deployment, asked.expected
        name = deployment.name
        if name in self._draining:
            return NotReadyError(
                f"{name} is draining: its last requests run; deploy it after them"
            )
        try:
            table = table_with(self._serving, deployment, expected)
            routing = RoutingTable(name)
            source = self._sources.make(deployment, routing.note_error)
            self._share_endpoint(source, expected)
        except AtomrError as error:
            return error
        # Known before its tree starts, so that no phase that it reports is lost.
        blueprint = Blueprint(source)
        self._serving.publish(table, routing)
        self._serving.hold(name, blueprint)
        on_phase = partial(self._serving.enter, name)
        spec = deployment_spec(blueprint, routing, on_phase)
        try:
            tree = await start_child(DEPLOYMENTS, spec)
        except AtomrError:
            log.exception("deployment %s has no processes", name)
            self._serving.leave(name)
            return NotReadyError(f"{name} did not start; see the log")
        self._watch(name, tree)
        return None

    def _share_endpoint(self, source: EngineSource, expected: frozenset[str]) -> None:
        """Let a deployment use prices, circuit and rate limits of whom it asks."""
        name, endpoint = source.deployment.name, source.endpoint
        asks = self._sources.asks(source)
        self._serving.limits.check(source.deployment, asks, expected=expected)
        if endpoint is None:
            self._serving.breakers.remove(name)
            self._serving.prices.remove(name)
        else:
            shown = f"{source.plugin.name} {endpoint}"
            self._serving.breakers.add(source.deployment, shown, expected=expected)
            self._serving.prices.add(source.deployment, endpoint)
        self._serving.limits.add(source.deployment, asks)

    def _watch(self, name: str, tree: Pid) -> None:
        self._trees[name] = _Tree(tree, monitor(tree))

    def _failed(self, name: str, reason: object) -> None:
        log.error("deployment %s has failed: %s", name, reason)
        # The reason names our processes; clients learn what the engine said.
        last = self._serving.routing(name).last_error
        why = "" if last is None else f": {last.message}"
        self._serving.fail(name, NotReadyError(f"{name} has failed{why}; see the log"))

    # --- changed ones --------------------------------------------------------------

    def _change(self, wanted: Deployment) -> AtomrError | None:
        try:
            now, _ = self._changeable(wanted)
            if not changes_while_serving(now, wanted):
                raise ConfigError(
                    f"deployment {wanted.name!r} cannot become that one while it "
                    "serves; replace it"
                )
            table = self._serving.table.with_changed(wanted)
        except AtomrError as error:
            return error
        self._serving.publish(table)
        blueprint = self._serving.blueprint(wanted.name)
        blueprint.reread(attrs.evolve(blueprint.source, deployment=wanted))
        return None

    def _changeable(self, wanted: Deployment) -> tuple[Deployment, Pid]:
        """Return what has the name of the wanted one, and its tree.

        Raises:
            ConfigError: there is none of its name.
            NotReadyError: it is loading, or has failed.
        """
        name = wanted.name
        now = self._serving.deployments.get(name)
        if now is None:
            raise ConfigError(f"there is no deployment {name!r}")
        if self._serving.is_loading(name):
            # Whoever deploys it would not know it any more, should it fail.
            raise NotReadyError(f"{name} is loading; change it when it serves")
        if name not in self._trees:
            raise NotReadyError(f"{name} has failed; deploy it anew")
        return now, self._trees[name].pid

    def _replace(self, asked: Replace) -> AtomrError | tuple[Rebuild, ...]:
        expected = asked.expected
        try:
            self._serving.table.with_changed(*asked.deployments, expected=expected)
            rebuilds = tuple(map(self._rebuild, asked.deployments))
            for rebuild in rebuilds:
                self._check_endpoint(rebuild.source, expected)
        except AtomrError as error:
            return error
        return rebuilds

    def _rebuild(self, wanted: Deployment) -> Rebuild:
        now, tree = self._changeable(wanted)
        blueprint = self._serving.blueprint(wanted.name)
        keys = (wanted.credential, wanted.credentials)
        keeps_keys = keys == (now.credential, now.credentials)
        source = self._sources.make(
            wanted,
            self._serving.routing(wanted.name).note_error,
            keys=blueprint.keys if keeps_keys else None,
        )
        keeps = keeps_engine(now, wanted, is_client=source.is_client)
        return Rebuild(blueprint, source, tree, opens=not keeps)

    def _check_endpoint(self, source: EngineSource, expected: frozenset[str]) -> None:
        asks = self._sources.asks(source)
        self._serving.limits.check(source.deployment, asks, expected=expected)
        if source.endpoint is not None:
            shown = f"{source.plugin.name} {source.endpoint}"
            self._serving.breakers.check(source.deployment, shown, expected=expected)

    async def _commit(self, asked: Commit) -> AtomrError | None:
        serving, expected = self._serving, asked.expected
        wanted = [rebuild.wanted for rebuild in asked.rebuilds]
        try:
            table = serving.table.with_changed(*wanted, expected=expected)
            for rebuild in asked.rebuilds:
                self._check_there(rebuild)
                self._check_endpoint(rebuild.source, expected)
        except AtomrError as error:
            return error
        limits = [_asks_the_same(r.blueprint.source, r.source) for r in asked.rebuilds]
        for rebuild in asked.rebuilds:
            self._share_endpoint(rebuild.source, expected)
            if rebuild.opens:
                rebuild.blueprint.source = rebuild.source
            else:
                rebuild.blueprint.reread(rebuild.source)
        serving.publish(table)
        for rebuild, keeps in zip(asked.rebuilds, limits, strict=True):
            await self._reshaping.reshape(
                rebuild.tree,
                rebuild.blueprint,
                rebuild.contexts,
                keeps_limit=keeps or not rebuild.opens,
            )
        return None

    def _check_there(self, rebuild: Rebuild) -> None:
        tree = self._trees.get(rebuild.wanted.name)
        if tree is None or tree.pid is not rebuild.tree:
            raise NotReadyError(f"{rebuild.wanted.name} was stopped")

    # --- those that go -------------------------------------------------------------

    async def _undeploy(self, name: str, only: Deployment | None) -> bool:
        found = self._serving.deployments.get(name)
        draining = self._draining.get(name)
        is_known = found is not None and not self._serving.is_elsewhere(name)
        if not is_known and draining is not None and only is None:
            await self._end_draining(name, draining)
            return True
        if found is None or (only is not None and found is not only):
            return False
        tree = self._take_out(name)
        if tree is not None:
            await _end_tree(tree.pid)
        return True

    def _take_out(self, name: str) -> _Tree | None:
        """Route to a deployment no more; return its tree, whose end means nothing."""
        self._serving.leave(name)
        left = self._serving.table.deployments
        is_gone = name not in self._serving.deployments
        for other in left if is_gone else ():
            if any(fallback.to == name for fallback in other.fallbacks):
                log.warning("%s falls back to %s, which is gone", other.name, name)
        # None: its tree gave up before, and only its name was left.
        tree = self._trees.pop(name, None)
        if tree is not None:
            # Its end must not be taken for that of a later tree of this name.
            demonitor(tree.monitor, flush=True)
        return tree

    async def _drain(self, name: str, from_: From) -> Reply | NoReply:
        draining = self._draining.get(name)
        if draining is None:
            if name not in self._serving.deployments:
                return Reply(value=False)
            cores = [replica.core for replica in self._serving.replicas(name)]
            tree = self._take_out(name)
            if tree is None:
                return Reply(value=True)
            busy = {core: monitor(core) for core in cores}
            draining = self._draining[name] = _Draining(tree, busy, [])
            self._serving.draining = frozenset(self._draining)
            for core in cores:
                self._reshaping.retire(core)
            if not cores:
                await self._end_draining(name, draining)
                return Reply(value=True)
        draining.asked.append(from_)
        return NoReply()

    async def _idle(self, core: Pid) -> None:
        for name, draining in list(self._draining.items()):
            if core in draining.busy:
                demonitor(draining.busy.pop(core))
                if not draining.busy:
                    await self._end_draining(name, draining)

    async def _ended_draining(self, ref: Ref) -> None:
        """Take the end of a replica that drained: it is idle for good."""
        for draining in self._draining.values():
            for core, watched in draining.busy.items():
                if watched is ref:
                    await self._idle(core)
                    return

    async def _end_draining(self, name: str, draining: _Draining) -> None:
        await _end_tree(draining.tree.pid)
        for watched in draining.busy.values():
            demonitor(watched, flush=True)
        del self._draining[name]
        self._serving.draining = frozenset(self._draining)
        for from_ in draining.asked:
            from_.reply(value=True)


def _asks_the_same(last: EngineSource, now: EngineSource) -> bool:
    """Whether two sources ask one upstream with the same keys."""
    same = now.endpoint is not None and now.endpoint == last.endpoint
    return same and now.context.credentials is last.context.credentials


async def _end_tree(tree: Pid) -> None:
    # Not there: it gave up by itself in this very moment.
    with suppress(ChildNotFoundError):
        await terminate_child(DEPLOYMENTS, tree)
