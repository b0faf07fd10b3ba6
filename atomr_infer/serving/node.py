"""The node below the serving tree: what it shares with others, and keeps.

There is always one.  Where it has no others its services are the same, with nobody
to speak to: what keeps limits, budgets and keys is then one code, alone and in a
cluster.

A service is made before the node is opened, and plugged into it with :meth:`add`.
"""

from __future__ import annotations

import fcntl
import math
import os
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from atomr.cluster import (
    ClusterOptions,
    DnsSeeds,
    FileSeeds,
    StaticSeeds,
    open_alone,
    open_cluster,
)
from atomr.cluster.discovery.address import parse_address
from atomr.cluster.options import DEFAULT_PORT
from atomr.cluster.remote import Messages, RemoteProcesses
from atomr.cluster.replicator import Replicator, ReplicatorOptions, StoreOptions
from atomr.errors import ClusterError, StartError
from atomr.http2 import Credentials
from atomr.process import open_node
from atomr_infer.config.node import NodeConfig
from atomr_infer.config.secrets import resolve_own
from atomr_infer.errors import ConfigError, NotReadyError
from atomr_infer.serving.agreed import Agreement
from atomr_infer.serving.alive import Alive, Use
from atomr_infer.serving.roster import Roster
from atomr_infer.serving.steering import Steering

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping

    from atomr.cluster import Cluster, ClusterService, Discovery, Peers
    from atomr.cluster.permits import Limit, Past
    from atomr.process import Node
    from atomr_infer.config.node import ClusterConfig

_VALUES_FILE = "values.sqlite"
_BOOT_FILE = "boot"
_LOCK_FILE = "lock"
_ALIVE_FILE = "alive"
_NODES_FILE = "nodes.json"


class ServingNode:
    """A node, alone or one of several.

    Attributes:
        config: who it is.
        name: the same.
        voters: the nodes that limits and budgets are kept by, sorted: itself, where
            it has no others.
        state_dir: the folder of what outlives the node; None: nothing does.
        remote: processes of other nodes.
        replicator: values that all nodes have.
        steering: what operators ask of all nodes.
        roster: which nodes there are, those that are away too.
        agreement: what the nodes' files have to say alike.
        cluster: the open cluster; None: it is not open, or has no others.
        shares_port: whether its clients' port is other nodes' too, of one machine.
        is_starting: whether it still loads what it was started with.
        replace_after_s: how long another node must be away before its replicas run
            elsewhere, in seconds.
    """

    def __init__(
        self,
        config: NodeConfig | None = None,
        options: ClusterOptions | None = None,
        *,
        alive: Path | None = None,
    ) -> None:
        """Make a node that is not open yet.

        Args:
            config: who it is.
            options: how it finds others; None: it has none.
            alive: the file that says when it ran last; None: one in its folder.
        """
        self.config = NodeConfig() if config is None else config
        self.name = self.config.own_name if options is None else options.name
        self.voters: tuple[str, ...] = (self.name,)
        folder = self.config.state_dir
        self.state_dir = None if folder is None else Path(folder)
        self.remote = RemoteProcesses(Messages())
        self.cluster: Cluster | None = None
        self.shares_port = False
        self.is_starting = False
        self.replace_after_s = 30.0
        self._options = options
        self._peers: Peers | None = None
        self._services: list[ClusterService] = []
        store = self.file(_VALUES_FILE)
        # Values are divided so that nodes tell each other little at once, and as their
        # files are.  To divide them costs a quarter of a start, and buys nothing where
        # nobody is told and nothing is kept.
        divided = options is not None or store is not None
        self.replicator = Replicator(
            ReplicatorOptions() if divided else ReplicatorOptions(shards=1),
            store=None if store is None else StoreOptions(store),
        )
        self.steering = Steering()
        unknown_s = math.inf if options is None else 0.0
        self._alive = Alive(alive or self.file(_ALIVE_FILE), unknown_s=unknown_s)
        self.add(self.remote)
        self.add(self.replicator)
        self.add(self.steering)
        self.add(self._alive)
        self.roster = Roster(self.file(_NODES_FILE), expected=lambda: self.voters)
        self.agreement = Agreement(self)
        if options is not None:
            self.add(self.roster)
            self.add(self.agreement)

    def __repr__(self) -> str:
        return f"<ServingNode {self.name}>"

    @property
    def is_alone(self) -> bool:
        """Whether it can have no others."""
        return self._options is None

    @property
    def others(self) -> Callable[[], tuple[str, ...]] | None:
        """Returns the other voters' names; None: it can have no others."""
        if self.is_alone:
            return None
        return lambda: tuple(name for name in self.voters if name != self.name)

    @property
    def peers(self) -> Peers:
        """The other nodes; only while it is open."""
        assert self._peers is not None, "the node is open"
        return self._peers

    def past(self, limit: Limit | None = None) -> Past:
        """Return what is known of what another process of this node has used.

        Where nothing is kept nobody knows; alone it is taken for nothing, as a person
        who tries a gateway out would wait a minute.

        Args:
            limit: of this one; None: only when it has run.
        """
        return self._alive.past(limit if self.is_alone else None)

    def remember(self, uses: Callable[[], dict[str, Use]]) -> None:
        """Keep what is used of limits when the node ends, if it can have no others."""
        if self.is_alone:
            self._alive.uses = uses

    def file(self, name: str) -> Path | None:
        """Return where a service keeps something; None: nowhere."""
        return None if self.state_dir is None else self.state_dir / name

    def add(self, service: ClusterService) -> None:
        """Plug a service into the node, behind those that are in it already."""
        assert self._peers is None, "a service is added before the node is open"
        self._services.append(service)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Node]:
        """Be a node for the length of the block.

        Raises:
            ConfigError: its folder or address cannot be used.
            NotReadyError: its services crashed too often, or another process has its
                name; the body was cancelled.
        """
        with self._folder():
            try:
                async with open_node(self.name) as node, self._services_open():
                    yield node
            except StartError as error:
                raise _not_started(error) from error
            except ClusterError as error:
                raise NotReadyError(str(error)) from error

    @asynccontextmanager
    async def _services_open(self) -> AsyncIterator[None]:
        if self._options is None:
            file = self.file(_BOOT_FILE)
            async with open_alone(
                self.name, self._services, boot_file=file
            ) as self._peers:
                yield
            return
        async with open_cluster(self._options, self._services) as self.cluster:
            self._peers = self.cluster.peers
            yield

    @contextmanager
    def _folder(self) -> Iterator[None]:
        """Have the folder for this process alone."""
        if self.state_dir is None:
            yield
            return
        lock = self.state_dir / _LOCK_FILE
        try:
            self.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            opened = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(
                f"state_dir {str(self.state_dir)!r}: {error.strerror or error}; name a"
                " folder that can be written"
            ) from error
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        except BlockingIOError as error:
            raise ConfigError(
                f"state_dir {str(self.state_dir)!r} is another process'; each node"
                " needs its own"
            ) from error
        finally:
            os.close(opened)


def make_node(
    config: NodeConfig,
    cluster: ClusterConfig | None,
    environ: Mapping[str, str],
    *,
    alive: Path | None = None,
) -> ServingNode:
    """Return the node that a configuration asks for; not open yet.

    Args:
        config: who it is.
        cluster: None: it has no others.
        environ: where the cookie may be.
        alive: the file that says when it ran last; None: one in its folder.

    Raises:
        ConfigError: the certificates or the cookie are not there, or do not fit the
            names.
    """
    if cluster is None:
        return ServingNode(config, alive=alive)
    node = ServingNode(config, _options(config, cluster, environ), alive=alive)
    node.voters = tuple(sorted(cluster.voters))
    node.replace_after_s = cluster.replace_after_s
    return node


def _options(
    config: NodeConfig, cluster: ClusterConfig, environ: Mapping[str, str]
) -> ClusterOptions:
    lacking = "the cluster has no cookie"
    cookie = resolve_own(cluster.cookie, environ, lacking=lacking).reveal()
    folder = config.state_dir
    try:
        return ClusterOptions(
            name=config.own_name,
            cluster=cluster.name,
            cookie=cookie.encode(),
            credentials=Credentials.load(
                ca_file=Path(cluster.ca),
                certificate_file=Path(cluster.certificate),
                key_file=Path(cluster.private_key),
            ),
            listen=cluster.listen,
            advertise=cluster.advertise,
            discovery=_discoveries(cluster),
            boot_file=None if folder is None else Path(folder, _BOOT_FILE),
        )
    except ValueError as error:
        raise ConfigError(f"cluster {cluster.name!r}: {error}") from error


def _discoveries(cluster: ClusterConfig) -> list[Discovery]:
    found: list[Discovery] = []
    if cluster.seeds:
        found.append(StaticSeeds(cluster.seeds))
    if cluster.seeds_dns is not None:
        address = parse_address(cluster.seeds_dns, default_port=DEFAULT_PORT)
        found.append(DnsSeeds(address.host, address.port))
    if cluster.seeds_file is not None:
        found.append(FileSeeds(cluster.seeds_file))
    return found


def _not_started(error: StartError) -> ConfigError:
    reason = error.reason
    told = reason if isinstance(reason, Exception) else error
    return ConfigError(f"the node does not start: {told}")
