"""From a deployment to what opens its runners, checked from cheap to dear.

The runtime's own validation comes first, then what it needs to be installed, then the
credential.  Nothing is opened and nothing is asked.
"""

from __future__ import annotations

from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING

import attrs

from atomr.errors import AtomrError
from atomr_infer.config.secrets import resolve
from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret
from atomr_infer.policy.routing.composition import check_composition
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import HasEndpoint, Host, RunnerContext
from atomr_infer.runtimes.loader import load_runtime, plugin_ref
from atomr_infer.runtimes.others import Composes
from atomr_infer.serving.deployments.accounts import account_of
from atomr_infer.serving.limits.limiters import Asks
from atomr_infer.serving.replicas.engine_context import EngineSource
from atomr_infer.serving.requests.others import OtherDeployments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.runtimes.loader import Installed
    from atomr_infer.serving.shared import Serving


class Sources:
    """Makes sources from one environment and one set of installed runtimes."""

    def __init__(
        self, environ: Mapping[str, str], installed: Installed, serving: Serving
    ) -> None:
        self._environ = environ
        self._installed = installed
        self._serving = serving
        self._asks: dict[str, tuple[Deployment, tuple[str, ...]]] = {}

    def plugin(self, deployment: Deployment) -> RuntimePlugin:
        """Return a deployment's runtime, which would run it.

        Raises:
            AtomrError: there is none, or it refuses the deployment.
        """
        with _foreign(deployment):
            plugin = load_runtime(deployment.runtime, self._installed)
            plugin.validate(deployment)
            check_available(plugin, deployment, self._installed)
        return plugin

    def is_client(self, deployment: Deployment) -> bool:
        """Whether its engine is a client in its node's process.

        What is not installed here, as it need not be everywhere, is a local engine.
        """
        try:
            return self.plugin(deployment).host is Host.IN_PROCESS
        except PluginError:
            return False

    def make(
        self,
        deployment: Deployment,
        on_failure: Callable[[InferenceError], None],
        *,
        keys: Credentials | None = None,
    ) -> EngineSource:
        """Return what opens a deployment's runners.

        Args:
            deployment: what to run.
            on_failure: told why an engine failed.
            keys: what hands out its keys already; None: it is made.

        Raises:
            AtomrError: it cannot work as written.
        """
        plugin = self.plugin(deployment)
        if keys is None:
            keys = make_credentials(deployment, self._environ, self._installed)
        asks = self._asked_others(plugin, deployment)
        context = self._context(deployment, plugin.host, keys)
        if asks:
            context = attrs.evolve(context, others=OtherDeployments(self._serving))
        return EngineSource(
            plugin=plugin,
            plugin_ref=plugin_ref(deployment.runtime, self._installed),
            deployment=deployment,
            context=context,
            endpoint=self._endpoint(plugin, deployment),
            on_failure=on_failure,
            asks=asks,
            gpus_of=partial(self._serving.gpu_seats.of, deployment.name),
        )

    def _asked_others(
        self, plugin: RuntimePlugin, deployment: Deployment
    ) -> tuple[str, ...]:
        """Return the models that it asks others for.

        Raises:
            ConfigError: it would ask itself by way of others.
        """
        asks: tuple[str, ...] = ()
        if isinstance(plugin, Composes):
            with _foreign(deployment):
                asks = plugin.asks(deployment)
        known = {
            name: other
            for name, other in self._serving.deployments.items()
            if name != deployment.name
        }
        asked = {name: self._serving.asked_by(name) for name in known}
        asked[deployment.name] = asks
        if any(asked.values()):
            check_composition((*known.values(), deployment), asked, deployment.name)
        return asks

    def asked_elsewhere(self, deployment: Deployment) -> tuple[str, ...]:
        """Return the models that a deployment of another node asks others for.

        Returns:
            Nothing, where this node cannot say it: it lacks the runtime, or the code.
        """
        known = self._asks.get(deployment.name)
        if known is not None and known[0] is deployment:
            return known[1]
        asks: tuple[str, ...] = ()
        with suppress(AtomrError):  # its own node says it with the permit, too
            plugin = self.plugin(deployment)
            if isinstance(plugin, Composes):
                with _foreign(deployment):
                    asks = plugin.asks(deployment)
        there = self._serving.deployments
        self._asks = {name: it for name, it in self._asks.items() if name in there}
        self._asks[deployment.name] = (deployment, asks)
        return asks

    def asks(self, source: EngineSource) -> Asks:
        """Return whom a deployment asks, as its rate limits tell it apart."""
        name, endpoint = source.plugin.name, source.endpoint
        return Asks(
            provider=name if endpoint is None else f"{name} {endpoint}",
            account=account_of(source.deployment, self._environ),
        )

    def _endpoint(self, plugin: RuntimePlugin, deployment: Deployment) -> str | None:
        if not isinstance(plugin, HasEndpoint):
            return None
        with _foreign(deployment):
            return plugin.endpoint(deployment)

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
