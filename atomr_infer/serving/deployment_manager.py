"""The deployment manager: starts and stops deployments, one at a time.

Deploying is checked from cheap to dear: names, then the runtime's own
validation, then what it needs to be installed, then the credential; only then
does a tree start.  What may go wrong comes back to the caller as an error
value, so that a mistake in one deployment does not restart the manager.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr.core.messages import Down
from atomr.errors import AtomrError, ChildNotFoundError
from atomr.otp import (
    From,
    GenServer,
    Reply,
    start_child,
    terminate_child,
    which_children,
)
from atomr.process import demonitor, monitor
from atomr.refs import Pid, Ref
from atomr_infer.config.secrets import resolve
from atomr_infer.errors import (
    ConfigError,
    InferenceError,
    NotReadyError,
    PluginError,
)
from atomr_infer.model.deployment import Deployment, changes_while_serving
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.runtimes.contract import HasEndpoint, Host, RunnerContext
from atomr_infer.runtimes.loader import ensure_available, load_runtime, plugin_ref
from atomr_infer.serving import messages
from atomr_infer.serving.deployment_tree import deployment_spec
from atomr_infer.serving.engine_context import EngineSource
from atomr_infer.serving.names import DEPLOYMENTS
from atomr_infer.serving.routing_table import RoutingTable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.runtimes.contract import RuntimePlugin
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.runtimes.loader import Installed
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)


@attrs.frozen(eq=False)
class _Tree:
    """A deployment's running tree."""

    pid: Pid
    monitor: Ref


class DeploymentManager(GenServer):
    """Keeps the model table true to what runs."""

    def __init__(
        self, serving: Serving, environ: Mapping[str, str], installed: Installed
    ) -> None:
        self._serving = serving
        self._installed = installed
        self._environ = environ
        self._trees: dict[str, _Tree] = {}

    async def init(self) -> None:
        """Take over what runs already: this may be a restart."""
        known = {deployment.name for deployment in self._serving.table.deployments}
        for child in await which_children(DEPLOYMENTS):
            if child.pid is None:
                continue
            if child.id in known:
                self._watch(child.id, child.pid)
            else:
                # The last manager ended in the middle of an undeploy.
                await _end_tree(child.pid)
        for deployment in self._serving.table.deployments:
            if deployment.name not in self._trees:
                self._failed(deployment.name, "its tree ended unseen")

    def format_status(self) -> object:
        """Show the deployments; the environment holds secrets."""
        return {"deployments": sorted(self._trees)}

    async def handle_call(self, request: object, from_: From) -> Reply:
        """Answer ``Deploy``, ``Change`` and ``Undeploy``."""
        match request:
            case messages.Deploy():
                return Reply(await self._deploy(request))
            case messages.Change(deployment=deployment):
                return Reply(self._change(deployment))
            case messages.Undeploy(name=name, only=only):
                return Reply(await self._undeploy(name, only))
            case _:
                raise TypeError(f"the manager does not know the request {request!r}")

    def handle_info(self, message: object) -> None:
        """Take the end of a deployment's tree: it has failed."""
        if isinstance(message, Down):
            for name, tree in self._trees.items():
                if tree.monitor is message.ref:
                    del self._trees[name]
                    self._failed(name, message.reason)
                    return
        super().handle_info(message)

    async def _deploy(self, asked: messages.Deploy) -> AtomrError | None:
        deployment = asked.deployment
        try:
            table = self._serving.table.with_deployment(
                deployment, expected=asked.expected
            )
            routing = RoutingTable(deployment.name)
            source = self._source(deployment, routing.note_error)
            self._share_breaker(source.plugin, deployment)
        except AtomrError as error:
            return error
        # Known before its tree starts, so that no phase that it reports is lost.
        self._serving.publish(table, routing)
        if source.context.credentials is not None:
            self._serving.hold_keys(deployment.name, source.context.credentials)
        on_phase = partial(self._serving.enter, deployment.name)
        spec = deployment_spec(source, routing, on_phase)
        try:
            tree = await start_child(DEPLOYMENTS, spec)
        except AtomrError:
            log.exception("deployment %s has no processes", deployment.name)
            self._serving.publish(self._serving.table.without(deployment.name))
            return NotReadyError(f"{deployment.name} did not start; see the log")
        self._watch(deployment.name, tree)
        return None

    def _change(self, wanted: Deployment) -> AtomrError | None:
        now = self._serving.deployments.get(wanted.name)
        if now is None:
            return ConfigError(f"there is no deployment {wanted.name!r}")
        if self._serving.is_loading(wanted.name):
            # Whoever deploys it would not know it any more, should it fail.
            return NotReadyError(f"{wanted.name} is loading; change it when it serves")
        if not changes_while_serving(now, wanted):
            return ConfigError(
                f"deployment {wanted.name!r} cannot become that one while it serves; "
                "deploy it anew"
            )
        try:
            table = self._serving.table.with_changed(wanted)
        except AtomrError as error:
            return error
        self._serving.publish(table)
        return None

    def _watch(self, name: str, tree: Pid) -> None:
        self._trees[name] = _Tree(tree, monitor(tree))

    def _failed(self, name: str, reason: object) -> None:
        log.error("deployment %s has failed: %s", name, reason)
        # The reason names our processes; clients learn what the engine said.
        last = self._serving.routing(name).last_error
        why = "" if last is None else f": {last.message}"
        self._serving.fail(name, NotReadyError(f"{name} has failed{why}; see the log"))

    def _source(
        self, deployment: Deployment, on_failure: Callable[[InferenceError], None]
    ) -> EngineSource:
        plugin = self._checked_plugin(deployment)
        keys = make_credentials(deployment, self._environ, self._installed)
        return EngineSource(
            plugin=plugin,
            plugin_ref=plugin_ref(deployment.runtime, self._installed),
            deployment=deployment,
            context=self._context(deployment, plugin.host, keys),
            on_failure=on_failure,
        )

    def _context(
        self, deployment: Deployment, host: Host, keys: Credentials
    ) -> RunnerContext:
        source = deployment.credential
        credential = None
        if isinstance(source, (EnvSecret, FileSecret, Secret)):
            credential = resolve(source, self._environ, deployment=deployment.name)
        if host is Host.IN_PROCESS:
            return RunnerContext(credential=credential, credentials=keys)
        if deployment.credentials or (source is not None and credential is None):
            # It gets its key once, when it starts.
            raise ConfigError(
                f"deployment {deployment.name!r}: the runtime {deployment.runtime!r} "
                "runs in a process of its own and takes one key, from a variable or "
                "a file"
            )
        return RunnerContext(credential=credential)

    def _share_breaker(self, plugin: RuntimePlugin, deployment: Deployment) -> None:
        if not isinstance(plugin, HasEndpoint):
            return
        with _foreign(deployment):
            endpoint = plugin.endpoint(deployment)
        if endpoint is not None:
            self._serving.prices.add(deployment, endpoint)
            self._serving.breakers.add(deployment, f"{plugin.name} {endpoint}")

    def _checked_plugin(self, deployment: Deployment) -> RuntimePlugin:
        with _foreign(deployment):
            plugin = load_runtime(deployment.runtime, self._installed)
            plugin.validate(deployment)
            ensure_available(plugin, self._installed)
        return plugin

    async def _undeploy(self, name: str, only: Deployment | None) -> bool:
        found = [d for d in self._serving.table.deployments if d.name == name]
        if not found or (only is not None and found[0] is not only):
            return False
        self._serving.publish(self._serving.table.without(name))
        for other in self._serving.table.deployments:
            if any(fallback.to == name for fallback in other.fallbacks):
                log.warning("%s falls back to %s, which is gone", other.name, name)
        # None: its tree gave up before, and only its name was left.
        tree = self._trees.pop(name, None)
        if tree is not None:
            # Its end must not be taken for that of a later tree of this name.
            demonitor(tree.monitor, flush=True)
            await _end_tree(tree.pid)
        return True


@contextmanager
def _foreign(deployment: Deployment) -> Iterator[None]:
    """Keep a plugin's bug from ending the manager: it is foreign code."""
    try:
        yield
    except AtomrError:
        raise
    except Exception as error:
        raise PluginError(
            f"runtime {deployment.runtime!r} failed while it checked "
            f"{deployment.name!r}: {type(error).__name__}: {error}"
        ) from error


async def _end_tree(tree: Pid) -> None:
    # Not there: it gave up by itself in this very moment.
    with suppress(ChildNotFoundError):
        await terminate_child(DEPLOYMENTS, tree)
