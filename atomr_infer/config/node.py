"""What a node is told of itself and of its cluster: ``[node]`` and ``[cluster]``.

A node is always there, also where it has no others; ``[cluster]`` makes it one of
several.

Pure.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import attrs

from atomr_infer.config.credentials import read_cookie
from atomr_infer.model.secret import EnvSecret, FileSecret
from atomr_infer.model.validation import (
    InvalidValueError,
    identifier,
    non_empty,
    positive,
)

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.config.reader import TableReader

ROLES = ("control", "gpu", "egress", "edge")
"""What a node may do: keep votes, run engines, call providers, take requests."""

_NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?")
_path = attrs.validators.optional(non_empty)


def _tuple(value: object) -> object:
    return tuple(value) if isinstance(value, list) else value


def _check_roles(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not value:
        raise InvalidValueError(field.name, value, "is not an array of roles")
    for role in value:
        if role not in ROLES:
            known = ", ".join(ROLES)
            raise InvalidValueError(field.name, role, f"is no role; use {known}")


def _check_name(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if value is None:
        return
    if not isinstance(value, str) or _NAME.fullmatch(value) is None:
        problem = "is not a node's name; use letters, digits and . _ -"
        raise InvalidValueError(field.name, value, problem)


def _check_names(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple) or not value:
        problem = 'is not an array of nodes\' names, as ["a", "b", "c"]'
        raise InvalidValueError(field.name, value, problem)
    for name in value:
        _check_name(_, field, name)
    if len(set(value)) < len(value):
        raise InvalidValueError(field.name, list(value), "names a node twice")


def _check_labels(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, dict):
        problem = 'is not a table of texts, as { region = "eu" }'
        raise InvalidValueError(field.name, value, problem)
    for name, text in value.items():
        if not isinstance(text, str) or not text or not name:
            raise InvalidValueError(field.name, {name: text}, "is not a text")


def _check_addresses(_: object, field: attrs.Attribute[Any], value: object) -> None:
    if not isinstance(value, tuple):
        problem = 'is not an array of addresses, as ["host:4370"]'
        raise InvalidValueError(field.name, value, problem)
    for address in value:
        non_empty(_, field, address)


@attrs.frozen(kw_only=True)
class NodeConfig:
    """Who this node is.

    Attributes:
        name: the same each time that it runs, and no other node's; none: the
            host's name, up to its first dot.
        state_dir: the folder, made if need be, of what outlives the node: virtual
            keys, what is left of budgets; of this node alone.  None: nothing does.
        roles: what the node may do: ``control``, ``gpu``, ``egress``, ``edge``.
        labels: what the node says of itself, for the placement of deployments:
            ``{ region = "eu" }``.

    >>> NodeConfig(name="a").own_name
    'a'
    """

    name: str | None = attrs.field(default=None, validator=_check_name)
    state_dir: str | None = attrs.field(default=None, validator=_path)
    roles: tuple[str, ...] = attrs.field(
        default=ROLES, converter=_tuple, validator=_check_roles
    )
    labels: Mapping[str, str] = attrs.field(
        factory=dict, validator=_check_labels, hash=False
    )

    @property
    def own_name(self) -> str:
        """The node's name."""
        return self.name or host_name(socket.gethostname())


def host_name(host: str) -> str:
    """Return the node's name on a host of that name.

    >>> host_name("gpu-1.example.org"), host_name("")
    ('gpu-1', 'node')
    """
    match = _NAME.match(host.partition(".")[0])
    return match[0] if match else "node"


@attrs.frozen(kw_only=True)
class ClusterConfig:
    """How a node finds the others of its cluster, and proves that it is one.

    Attributes:
        name: of the cluster; nodes of another one are refused.
        voters: the names of the nodes that limits and budgets are kept by, the same
            on all nodes; a few that are always there, such as three.
        cookie: where the secret of all nodes is found, a variable or a file.
        ca: PEM file of the authority that signed all nodes' certificates; ``atomr-infer
            cluster certs`` makes one, and them.
        certificate: PEM file of this node's certificate.
        private_key: PEM file of its key.
        listen: ``host:port`` for the other nodes; not the gateway's.
        advertise: ``host:port`` where others reach it; none: as ``listen``.
        seeds: addresses of nodes to join by.
        seeds_dns: a name with all nodes' addresses, ``host`` or ``host:port``, such as
            a headless service's.
        seeds_file: a file with an address on each line, which may change.
        replace_after_s: how long a node must be away before others run its
            replicas, in seconds.
    """

    name: str = attrs.field(validator=identifier)
    voters: tuple[str, ...] = attrs.field(converter=_tuple, validator=_check_names)
    cookie: EnvSecret | FileSecret
    ca: str = attrs.field(validator=non_empty)
    certificate: str = attrs.field(validator=non_empty)
    private_key: str = attrs.field(validator=non_empty)
    listen: str = attrs.field(default="127.0.0.1:4370", validator=non_empty)
    advertise: str | None = attrs.field(default=None, validator=_path)
    seeds: tuple[str, ...] = attrs.field(
        default=(), converter=_tuple, validator=_check_addresses
    )
    seeds_dns: str | None = attrs.field(default=None, validator=_path)
    seeds_file: str | None = attrs.field(default=None, validator=_path)
    replace_after_s: float = attrs.field(default=30.0, validator=positive)


_REQUIRED = ("name", "voters", "cookie", "ca", "certificate", "private_key")


def read_node(table: TableReader | None, folder: Path) -> NodeConfig:
    """Read ``[node]``.

    Args:
        table: None: it is not written.
        folder: what a relative path is relative to.

    Raises:
        ConfigError: at the first mistake.
    """
    if table is None:
        return NodeConfig()
    node = table.read(NodeConfig)
    if node.state_dir is None:
        return node
    return attrs.evolve(node, state_dir=str(folder / node.state_dir))


def read_cluster(table: TableReader | None, folder: Path) -> ClusterConfig | None:
    """Read ``[cluster]``; as :func:`read_node`."""
    if table is None:
        return None
    cluster = table.read(
        ClusterConfig,
        {"cookie": lambda: read_cookie(table, folder)},
        required=dict.fromkeys(_REQUIRED, "a [cluster] needs it"),
    )
    beside = cluster.seeds_file
    return attrs.evolve(
        cluster,
        ca=str(folder / cluster.ca),
        certificate=str(folder / cluster.certificate),
        private_key=str(folder / cluster.private_key),
        seeds_file=None if beside is None else str(folder / beside),
    )
