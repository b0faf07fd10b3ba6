"""What ``status``, ``breaker`` and ``rotate-credentials`` ask a running gateway.

They are clients of its operators' routes (:mod:`atomr_infer.gateway.admin`), so
they work from wherever the gateway can be reached, with its admin key.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import attrs
import msgspec
import trio

from atomr_infer.cli.plan import admin_key_of
from atomr_infer.cli.trial import DEFAULT_URL, KEY_VARIABLE
from atomr_infer.config.load import load_gateway
from atomr_infer.config.secrets import resolve_own
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.model.secret import EnvSecret, Secret
from atomr_infer.remote.http.client import HttpClient
from atomr_infer.remote.http.phases import HttpTimeouts

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.config.gateway import GatewayConfig

_TIMEOUTS = HttpTimeouts(connect_s=5.0, write_s=10.0, head_s=10.0, idle_s=10.0)
_NO_QUERY: Mapping[str, str] = {}
_MAX_BODY_BYTES = 64 * 1024 * 1024
_OK = (200, 201)
_ANY_HOST = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@attrs.frozen
class Where:
    """A gateway, and what opens its operators' routes.

    Attributes:
        url: its address.
        key: the admin key.
        all_nodes: whether all nodes of its cluster are meant.
        file: the configuration that says its address; None: the address was given.
    """

    url: str
    key: Secret = attrs.field(repr=False)
    all_nodes: bool = False
    file: Path | None = None

    @property
    def other_places(self) -> str:
        """Where a gateway may be that does not answer, in words."""
        if self.file is None:
            return "one that is elsewhere is named with --url"
        return (
            f"{str(self.file)!r} says that it is there; one that was started before "
            "its address was changed is still where it was: --url URL names it"
        )


def find_gateway(
    *, config_path: Path | None, url: str | None, environ: Mapping[str, str]
) -> Where:
    """Return the gateway that is meant.

    Args:
        config_path: its configuration, which says its address and its key.
        url: its address; wins over the configuration's.
        environ: where keys are looked for.

    Raises:
        ConfigError: the configuration or the key is not there.
    """
    if config_path is None:
        return Where(url or DEFAULT_URL, _key_of_environment(environ))
    config = load_gateway(config_path)
    found = admin_key_of(config, environ)
    if found is None:
        raise ConfigError(
            "[gateway] has no admin_key, so the gateway has no operators' routes; "
            'write admin_key = { env = "NAME" } or { file = "PATH" }',
            path=str(config_path),
        )
    if url:
        return Where(url, found)
    return Where(_url(config.gateway, config_path), found, file=config_path)


def _key_of_environment(environ: Mapping[str, str]) -> Secret:
    lacking = "the operators' routes ask for the gateway's admin key"
    try:
        return resolve_own(EnvSecret(KEY_VARIABLE), environ, lacking=lacking)
    except ConfigError as error:
        more = "or name the gateway's configuration: --config FILE"
        raise ConfigError(f"{error}, {more}") from error


def _url(gateway: GatewayConfig, path: Path) -> str:
    host, port = gateway.admin_address
    if port == 0:
        raise ConfigError("bind takes any free port; give --url", path=str(path))
    scheme = "http" if gateway.certificate is None else "https"
    host = _ANY_HOST.get(host, host)
    shown = f"[{host}]" if ":" in host else host
    return f"{scheme}://{shown}:{port}"


def ask(
    where: Where,
    method: str,
    *path: str,
    body: object = None,
    query: Mapping[str, str] = _NO_QUERY,
    timeout_s: float = 10.0,
) -> Any:  # noqa: ANN401 - JSON
    """Ask one route, and return what it answers.

    Args:
        where: the gateway.
        method: in upper case.
        path: the segments behind ``/admin``; a deployment's name is one.
        body: sent as JSON; None: nothing is sent.
        query: names and values.
        timeout_s: how long the answer may take.

    Raises:
        ConfigError: the gateway refuses it, or no gateway answers.
    """
    return _read(where, *_answer(where, method, _path(path, query), body, timeout_s))


def ask_all(
    where: Where,
    method: str,
    *path: str,
    query: Mapping[str, str] = _NO_QUERY,
    timeout_s: float = 10.0,
) -> dict[str, Any]:
    """Ask one route of all nodes, and return what each answers, by its name.

    Args:
        where: a gateway of the cluster.
        method: in upper case.
        path: the segments behind ``/admin``.
        query: names and values.
        timeout_s: how long the answers may take.

    Returns:
        ``status`` and ``answer`` of each node.

    Raises:
        ConfigError: the gateway refuses it, or no gateway answers.
    """
    asked = _path(path, {**query, "nodes": "all"})
    status, body = _answer(where, method, asked, None, timeout_s)
    try:
        nodes: dict[str, Any] = msgspec.json.decode(body)["nodes"]
    except (msgspec.DecodeError, LookupError, TypeError):
        # It is no answer of nodes, so it says why.
        _read(where, status, body)
        raise ConfigError(f"what answers at {where.url} is no gateway") from None
    return nodes


def _path(path: tuple[str, ...], query: Mapping[str, str]) -> str:
    asked = "/".join(quote(segment) for segment in ("admin", *path))
    return f"/{asked}?{urlencode(query)}" if query else f"/{asked}"


def _answer(
    where: Where, method: str, path: str, body: object, timeout_s: float
) -> tuple[int, bytes]:
    timeouts = attrs.evolve(_TIMEOUTS, head_s=timeout_s)
    try:
        return trio.run(_ask, where, method, path, body, timeouts)
    except InferenceError as error:
        raise ConfigError(
            f"the gateway at {where.url} does not answer: {error.message}; "
            f"{where.other_places}"
        ) from error


async def _ask(
    where: Where, method: str, path: str, body: object, timeouts: HttpTimeouts
) -> tuple[int, bytes]:
    headers = [("authorization", f"Bearer {where.key.reveal()}")]
    sent = b"" if body is None else msgspec.json.encode(body)
    try:
        client = HttpClient(where.url, headers=headers, timeouts=timeouts)
    except ValueError as error:
        raise ConfigError(f"cannot ask {where.url}: {error}") from error
    failure: Exception | None = None
    answered = 0, b""
    async with client:
        try:
            async with client.request(
                method, path, body=sent, replay=body is None
            ) as answer:
                read = await answer.read(limit_bytes=_MAX_BODY_BYTES)
                answered = answer.status, read
        except InferenceError as error:
            failure = error  # raised below, bare: the client's block has a nursery
    if failure is not None:
        raise failure
    return answered


def _read(where: Where, status: int, body: bytes) -> object:
    try:
        value: Any = msgspec.json.decode(body)
        problem = None if status in _OK else str(value["error"]["message"])
    except (msgspec.DecodeError, LookupError, TypeError) as error:
        raise ConfigError(
            f"what answers at {where.url} is no gateway (HTTP {status})"
        ) from error
    if problem is None:
        return value
    if problem.startswith("there is no /admin/"):
        problem = "it has no operators' routes; name an admin_key under [gateway]"
    raise ConfigError(f"the gateway at {where.url} refuses: {problem}")
