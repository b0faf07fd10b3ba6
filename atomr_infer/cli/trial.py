"""The demo's operators' routes, so that `atomr-infer status` can be tried at once.

They ask for a key, and whoever tries out a demo has none.  So one is made for as long
as the process lives, and shown where it serves, as notebooks do; whoever has put one
into the environment keeps that.  The routes are for this machine alone
(`docs/decisions/0023-operators-routes.md`), and a demo that listens elsewhere, where a
proxy may stand in front, has none.
"""

from __future__ import annotations

import importlib.util
import secrets
import shlex
from collections.abc import Mapping
from functools import cache

import attrs

from atomr_infer.model.secret import Secret

KEY_VARIABLE = "ATOMR_INFER_ADMIN_KEY"
"""Where operators' commands look for the key when no configuration says so."""

DEFAULT_URL = "http://127.0.0.1:8080"
"""Where they look for the gateway when nothing says so."""

OF_ADMIN = ("quart", "quart_trio")
"""What the operators' routes import."""

_KEY_BYTES = 18


@attrs.frozen
class Trial:
    """How operators' commands can ask a gateway that was set up by no file.

    Attributes:
        key: opens the operators' routes.
        environment: what these commands have to be given; nothing where the
            environment that they are started in has it.
    """

    key: Secret
    environment: Mapping[str, str] = attrs.field(factory=dict, repr=False)

    def command(self, url: str) -> str:
        """Return the command that looks at the gateway, which is at ``url``."""
        given = [
            f"{name}={shlex.quote(text)}" for name, text in self.environment.items()
        ]
        where = [] if url == DEFAULT_URL else ["--url", shlex.quote(url)]
        return " ".join([*given, "atomr-infer status", *where])


def trial_of(environ: Mapping[str, str]) -> Trial | None:
    """Return how a demo can be looked at; None: what its routes need is not installed.

    Args:
        environ: where a key of the operator's own would be.
    """
    if not all(map(importlib.util.find_spec, OF_ADMIN)):
        return None
    own = environ.get(KEY_VARIABLE, "").strip()
    if own:
        return Trial(Secret(own))
    key = _made_key()
    return Trial(Secret(key), {KEY_VARIABLE: key})


@cache
def _made_key() -> str:
    # Once: a plan that is made anew must not lock out whoever has copied it.
    return secrets.token_urlsafe(_KEY_BYTES)
