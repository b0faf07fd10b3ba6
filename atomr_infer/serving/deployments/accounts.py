"""Which key a deployment uses, told apart without saying it.

Rate limits are a key's, on all nodes: so a key has a name that all of them find, and
nobody can find the key by.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from atomr_infer.config.secrets import resolve
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.secret import SecretSource

_PERSON = b"atomr limits"

_NO_KEY = "no key"


def account_of(deployment: Deployment, environ: Mapping[str, str]) -> str:
    """Return what stands for a deployment's key; several keys are one account.

    A key that is fetched, or that each client brings, is known by where it comes from.

    Args:
        deployment: whose key.
        environ: where keys may be.

    Raises:
        MissingSecretError: a key is not there.
    """
    sources = [pooled.source for pooled in deployment.credentials]
    if deployment.credential is not None:
        sources.append(deployment.credential)
    if not sources:
        return _NO_KEY
    name = deployment.name
    texts = sorted({_text(source, environ, name) for source in sources})
    return _digest("\0".join(texts))


def _text(
    source: SecretSource | Secret, environ: Mapping[str, str], deployment: str
) -> str:
    if isinstance(source, (EnvSecret, FileSecret, Secret)):
        return resolve(source, environ, deployment=deployment).reveal()
    return repr(source)


def _digest(text: str) -> str:
    return blake2b(text.encode(), digest_size=8, person=_PERSON).hexdigest()
