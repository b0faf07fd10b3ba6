"""``load_config``: a TOML file to a validated :class:`Config`.

The file is read whole, parsed by ``tomllib``, and taken apart by
:class:`~atomr_infer.config.reader.TableReader`.  All mistakes that do not
depend on each other are told together, each in one sentence that names file, line,
key and remedy.  Two things are left for later, because they need more than the
file: a runtime's own options (:mod:`atomr_infer.config.validate`) and the secrets
themselves (:mod:`atomr_infer.config.secrets`).
"""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from atomr_infer.config.budgets import check_downgrades, read_owned_budgets
from atomr_infer.config.credentials import read_admin_key, read_keys
from atomr_infer.config.default_runtime import with_runtimes
from atomr_infer.config.deployments import read_deployments
from atomr_infer.config.fallbacks import check_fallbacks
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.node import (
    ClusterConfig,
    NodeConfig,
    read_cluster,
    read_node,
)
from atomr_infer.config.placement import check_colocations
from atomr_infer.config.positions import scan
from atomr_infer.config.reader import Origin, TableReader
from atomr_infer.config.readings import Readings
from atomr_infer.config.syntax import explain
from atomr_infer.config.teams import read_teams
from atomr_infer.errors import ConfigError
from atomr_infer.model.budget import OwnedBudget
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.team import Team

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.model.secret import EnvSecret, FileSecret


@attrs.frozen(kw_only=True)
class Config:
    """What an operator configured.

    Attributes:
        gateway: how the gateway listens.
        deployments: what is to be served, in the order of the file.
        node: who the node is.
        cluster: whose other nodes it finds; None: it has no others.
        teams: what virtual keys may share.
        budgets: those of teams and of virtual keys.
        chosen: why each runtime was chosen that the file does not name.
        origin: the file behind it, for errors that are found later; None for
            a configuration that a program made.
    """

    gateway: GatewayConfig = attrs.field(factory=GatewayConfig)
    deployments: tuple[Deployment, ...] = ()
    node: NodeConfig = attrs.field(factory=NodeConfig)
    cluster: ClusterConfig | None = None
    teams: tuple[Team, ...] = ()
    budgets: tuple[OwnedBudget, ...] = ()
    chosen: tuple[str, ...] = ()
    origin: Origin | None = attrs.field(default=None, eq=False, repr=False)


_TABLES = ("gateway", "node", "cluster", "deployment", "team", "budget")


def load_config(path: str | Path) -> Config:
    """Read and validate a configuration file.

    The path of a credential file is taken relative to the configuration.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds something
            that cannot work; the message names the line and the remedy.
    """
    return parse_config(_read(Path(path)), str(path))


def parse_config(text: str, path: str) -> Config:
    """Validate the text of a configuration file.

    Args:
        text: the TOML document.
        path: the file's path, for errors and for relative credential files.

    Raises:
        ConfigError: as :func:`load_config` does.
    """
    mistakes = Mistakes()
    config, _ = examine_text(text, path, mistakes)
    mistakes.tell()
    return config


def examine_config(path: Path, mistakes: Mistakes) -> tuple[Config, Readings]:
    """Read of a configuration file what can be read, whatever else is wrong.

    Args:
        path: the file.
        mistakes: where all that is wrong is kept.

    Returns:
        What could be read; of a table with a mistake what it is without it.  And
        which part of the deployments can be believed.

    Raises:
        ConfigError: the file cannot be read, or is not TOML.
    """
    return examine_text(_read(path), str(path), mistakes)


def examine_text(text: str, path: str, mistakes: Mistakes) -> tuple[Config, Readings]:
    """As :func:`examine_config`, of a file's text."""
    top = _top(text, path)
    folder = Path(path).parent
    config = Config(origin=top.origin)
    with mistakes.kept():
        top.check_keys(_TABLES)
    with mistakes.kept():
        gateway = _read_gateway(top.table("gateway"), folder, mistakes)
        config = attrs.evolve(config, gateway=gateway)
    with mistakes.kept():
        config = attrs.evolve(config, node=read_node(top.table("node"), folder))
    with mistakes.kept():
        cluster = read_cluster(top.table("cluster"), folder)
        config = attrs.evolve(config, cluster=cluster)
    return _with_deployments(config, top, folder, mistakes)


def load_gateway(path: str | Path) -> Config:
    """Read of a file what says how to reach its gateway, and nothing else.

    Whoever asks a gateway why it has not taken a file needs no more of it.

    Returns:
        A configuration with ``gateway`` and ``origin`` alone.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or ``[gateway]`` holds
            something that cannot work.
    """
    top = _top(_read(Path(path)), str(path))
    mistakes = Mistakes()
    gateway = _read_gateway(top.table("gateway"), Path(path).parent, mistakes)
    mistakes.tell()
    return Config(gateway=gateway, origin=top.origin)


def _top(text: str, path: str) -> TableReader:
    document = _parse(text, path)
    return TableReader(Origin(path, scan(text)), (), "", document)


def _with_deployments(
    config: Config, top: TableReader, folder: Path, mistakes: Mistakes
) -> tuple[Config, Readings]:
    """Add what is deployed, and who pays: each of them names others of them."""
    teams: tuple[Team, ...] | None = None
    budgets: tuple[OwnedBudget, ...] = ()
    readings = Readings((), top.origin)
    with mistakes.kept():
        teams = read_teams(top)
    with mistakes.kept():
        budgets = read_owned_budgets(top, teams)
    top, chosen = with_runtimes(top, mistakes)
    with mistakes.kept():
        found = read_deployments(top, folder, mistakes)
        missing = any(top.missing_keys({"deployment": ""}, _TABLES))
        readings = Readings(found, top.origin, are_missing=missing)
        check_fallbacks(readings, top.origin, mistakes)
        check_colocations(readings, top.origin, mistakes)
        check_downgrades(readings, budgets, top.origin, mistakes)
    config = attrs.evolve(
        config,
        deployments=readings.values,
        teams=teams or (),
        budgets=budgets,
        chosen=chosen,
    )
    return config, readings


def _read_gateway(
    table: TableReader | None, folder: Path, mistakes: Mistakes
) -> GatewayConfig:
    """Read ``[gateway]``; with a mistake in it, where its keys are and no more."""
    if table is None:
        return GatewayConfig()
    gateway, before = GatewayConfig(), len(mistakes)
    keys: tuple[EnvSecret | FileSecret, ...] = ()
    admin_key: EnvSecret | FileSecret | None = None
    with mistakes.kept():
        keys = read_keys(table, folder) if "keys" in table.content else ()
    with mistakes.kept():
        if "admin_key" in table.content:
            admin_key = read_admin_key(table, folder)
    secrets = ("keys", "admin_key")
    rest = {name: text for name, text in table.content.items() if name not in secrets}
    with mistakes.kept():
        gateway = attrs.evolve(table, content=rest).read(GatewayConfig)
    if len(mistakes) > before:
        gateway = GatewayConfig()
    return attrs.evolve(
        gateway,
        keys=keys,
        admin_key=admin_key,
        certificate=_beside(folder, gateway.certificate),
        private_key=_beside(folder, gateway.private_key),
        response_store=_beside(folder, gateway.response_store),
    )


def _beside(folder: Path, path: str | None) -> str | None:
    """A path of the file's, taken relative to the file's folder."""
    return None if path is None else str(folder / path)


def _read(path: Path) -> str:
    try:
        content = path.read_bytes()
    except FileNotFoundError as error:
        raise ConfigError("there is no such file", path=str(path)) from error
    except IsADirectoryError as error:
        raise ConfigError("is a directory, not a file", path=str(path)) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise ConfigError(f"cannot be read: {reason}", path=str(path)) from error
    try:
        # Some editors put a byte-order mark in front, which TOML does not allow.
        return content.removeprefix(b"\xef\xbb\xbf").decode()
    except UnicodeDecodeError as error:
        line = error.object[: error.start].count(b"\n") + 1
        raise ConfigError(
            "is not UTF-8 text; save it with that encoding", path=str(path), line=line
        ) from error


def _parse(text: str, path: str) -> Mapping[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line, problem = explain(text, str(error))
        raise ConfigError(f"not valid TOML: {problem}", path=path, line=line) from error
    except RecursionError as error:
        raise ConfigError("is nested too deeply", path=path) from error
    except ValueError as error:
        # Python refuses to read a number of more than some thousand digits.
        raise ConfigError(f"holds a number that is too long: {error}", path=path) from (
            error
        )
