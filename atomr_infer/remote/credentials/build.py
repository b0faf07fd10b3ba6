"""From what a deployment says of its keys to the object that hands them out."""

from __future__ import annotations

from functools import partial
from importlib.metadata import distributions
from typing import TYPE_CHECKING

from atomr.errors import AtomrError
from atomr_infer.config.secrets import Environ, resolve
from atomr_infer.errors import MissingSecretError, PluginError
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    Secret,
    SecretSource,
)
from atomr_infer.policy.failures.key_pool import KeyPool
from atomr_infer.remote.credentials.fetched import FetchedReader
from atomr_infer.remote.credentials.keys import ClientKey, NoKey, OneKey, PooledKeys
from atomr_infer.remote.credentials.sources import (
    EnvReader,
    FileReader,
    FixedReader,
    SecretReader,
)
from atomr_infer.runtimes.credential_loader import load_provider
from atomr_infer.runtimes.credentials import ProviderContext

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.runtimes.credentials import Credentials
    from atomr_infer.runtimes.loader import Installed


def make_credentials(
    deployment: Deployment,
    environ: Mapping[str, str],
    installed: Installed = distributions,
) -> Credentials:
    """Return a deployment's keys; variables and files are read, nothing is fetched.

    Args:
        deployment: whose ``credential`` or ``credentials`` it is.
        environ: the environment.
        installed: where credential providers are looked for.

    Raises:
        MissingSecretError: a variable or file is absent, empty or unreadable.
        PluginError: a credential provider is unknown, broken or lacks packages.
        ConfigError: a provider refuses its options.
    """
    name = deployment.name
    environ = Environ(environ)
    if deployment.credentials:
        keys = deployment.credentials
        readers = [_reader(key.source, name, environ, installed) for key in keys]
        pool = KeyPool([key.weight for key in keys])
        return PooledKeys(readers, pool, deployment=name)
    source = deployment.credential
    if source is None:
        return NoKey()
    if isinstance(source, HeaderSecret):
        return ClientKey(source.header)
    return OneKey(_reader(source, name, environ, installed))


def _reader(
    source: SecretSource,
    deployment: str,
    environ: Mapping[str, str],
    installed: Installed,
) -> SecretReader:
    match source:
        case EnvSecret():
            return EnvReader(source, environ, deployment=deployment)
        case FileSecret():
            return FileReader(source, deployment=deployment)
        case PluginSecret():
            return _fetched(source, deployment, environ, installed)
        case Secret():
            return FixedReader(source)
        case HeaderSecret():
            raise AssertionError("a pool refuses a client's header")


def _fetched(
    source: PluginSecret,
    deployment: str,
    environ: Mapping[str, str],
    installed: Installed,
) -> FetchedReader:
    provider = load_provider(source.provider, installed)
    try:
        provider.validate(source.options)
    except AtomrError:
        raise
    except Exception as error:
        # A provider is foreign code: its bug must not end who deploys.
        raise PluginError(
            f"credential provider {source.provider!r} failed while it checked "
            f"{deployment!r}: {type(error).__name__}"
        ) from error
    context = ProviderContext(
        deployment=deployment,
        environ=environ,
        secret=partial(_option_secret, environ=environ, deployment=deployment),
    )
    return FetchedReader(
        partial(provider.fetch, source.options, context),
        label=f"{deployment}: the credential provider {source.provider!r}",
    )


def _option_secret(
    value: object, *, environ: Mapping[str, str], deployment: str
) -> Secret:
    if isinstance(value, (EnvSecret, FileSecret, Secret)):
        return resolve(value, environ, deployment=deployment)
    raise MissingSecretError(
        f"deployment {deployment!r}: a provider's secret is written as a table: "
        '{ env = "NAME" } or { file = "PATH" }'
    )
