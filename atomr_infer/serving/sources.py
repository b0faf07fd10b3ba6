"""From a deployment to what opens its runners, checked from cheap to dear.

The runtime's own validation comes first, then what it needs to be installed, then the
credential.  Nothing is opened and nothing is asked.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from atomr.errors import AtomrError
from atomr_infer.config.secrets import resolve
from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.runtimes.available import check_available
from atomr_infer.runtimes.contract import HasEndpoint, Host, RunnerContext
from atomr_infer.runtimes.loader import load_runtime, plugin_ref
from atomr_infer.serving.accounts import account_of
from atomr_infer.serving.engine_context import EngineSource
from atomr_infer.serving.limiters import Asks

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.errors import InferenceError
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.contract import RuntimePlugin
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.runtimes.loader import Installed


class Sources:
    """Makes sources from one environment and one set of installed runtimes."""

    def __init__(self, environ: Mapping[str, str], installed: Installed) -> None:
        self._environ = environ
        self._installed = installed

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
        return EngineSource(
            plugin=plugin,
            plugin_ref=plugin_ref(deployment.runtime, self._installed),
            deployment=deployment,
            context=self._context(deployment, plugin.host, keys),
            endpoint=self._endpoint(plugin, deployment),
            on_failure=on_failure,
        )

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
