"""The keys ``credential`` and ``credentials`` of a deployment, to secret sources.

====================================  ======================================
``{ env = "NAME" }``                  an environment variable
``{ file = "PATH" }``                 a file, relative to the configuration
``{ header = "NAME" }``               a header of the client's request
``{ provider = "NAME", ... }``        a credential provider and its options
====================================  ======================================

A provider's own secrets are written the same way, as tables inside its options.

No value is ever shown in an error: it may be the secret itself.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.reader import TableReader
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    SecretSource,
)
from atomr_infer.model.validation import InvalidValueError

if TYPE_CHECKING:
    from pathlib import Path

SHOWN_FIX = 'write credential = { env = "NAME_OF_A_VARIABLE" } or { file = "PATH" }'

_KINDS = ("env", "file", "header", "provider")
_KEYS_FIX = 'write keys = [{ env = "NAME" }, { file = "PATH" }]'
_COOKIE_FIX = 'write cookie = { file = "PATH" } or { env = "NAME" }'
_ADMIN_FIX = 'write admin_key = { env = "NAME" } or { file = "PATH" }'
_POOL_FIX = 'write credentials = [{ env = "NAME" }, { env = "OTHER" }]'


def read_credential(reader: TableReader, folder: Path) -> SecretSource:
    """Read a deployment's ``credential``.

    Args:
        reader: the deployment's table; the key is there.
        folder: what a relative file is relative to.

    Raises:
        ConfigError: it is no table, or names no source or several.
    """
    if not isinstance(reader.content["credential"], dict):
        problem = "a credential does not belong in this file"
        raise reader.fail("credential", f"{problem}; {SHOWN_FIX}")
    table = reader.table("credential")
    assert table is not None, "the key is there and holds a table"
    return _source(reader, table, "credential", folder)


def read_credentials(reader: TableReader, folder: Path) -> tuple[PooledSecret, ...]:
    """Read a deployment's ``credentials``; see :func:`read_credential`."""
    elements = reader.content["credentials"]
    if not isinstance(elements, list) or not elements:
        problem = "credentials is no array of tables"
        raise reader.fail("credentials", f"{problem}; {_POOL_FIX}")
    return tuple(
        _pooled(reader, index, content, folder)
        for index, content in enumerate(elements)
    )


def read_keys(reader: TableReader, folder: Path) -> tuple[EnvSecret | FileSecret, ...]:
    """Read the gateway's ``keys``: where the keys that open it are found.

    Raises:
        ConfigError: it is no array of tables that name variables or files.
    """
    elements = reader.content["keys"]
    if not isinstance(elements, list) or not elements:
        raise reader.fail("keys", f"keys is no array of tables; {_KEYS_FIX}")
    found: list[EnvSecret | FileSecret] = []
    for index, content in enumerate(elements):
        if not isinstance(content, dict):
            problem = "a key does not belong in this file"
            raise reader.fail("keys", f"{problem}; {_KEYS_FIX}")
        label = f"gateway: keys[{index}]"
        where = (*reader.where, "keys", index)
        table = TableReader(reader.origin, where, label, content)
        found.append(_own_key(reader, table, "keys", folder))
    return tuple(found)


def read_admin_key(reader: TableReader, folder: Path) -> EnvSecret | FileSecret:
    """Read the gateway's ``admin_key``: where it is found.

    Raises:
        ConfigError: it is no table that names a variable or a file.
    """
    return _own_secret(reader, "admin_key", folder, _ADMIN_FIX)


def read_cookie(reader: TableReader, folder: Path) -> EnvSecret | FileSecret:
    """Read the cluster's ``cookie``: where the secret of all its nodes is found.

    Raises:
        ConfigError: it is no table that names a variable or a file.
    """
    return _own_secret(reader, "cookie", folder, _COOKIE_FIX)


def _own_secret(
    reader: TableReader, key: str, folder: Path, fix: str
) -> EnvSecret | FileSecret:
    if not isinstance(reader.content[key], dict):
        problem = "a key does not belong in this file"
        raise reader.fail(key, f"{problem}; {fix}")
    table = reader.table(key)
    assert table is not None, "the key is there and holds a table"
    return _own_key(reader, table, key, folder)


def _own_key(
    reader: TableReader, table: TableReader, key: str, folder: Path
) -> EnvSecret | FileSecret:
    table.check_keys(("env", "file"))
    source = _source(reader, table, key, folder)
    assert isinstance(source, EnvSecret | FileSecret), "others were refused"
    return source


def _pooled(
    reader: TableReader, index: int, content: object, folder: Path
) -> PooledSecret:
    if not isinstance(content, dict):
        problem = "a credential does not belong in this file"
        raise reader.fail("credentials", f"{problem}; {_POOL_FIX}")
    label = f"{reader.label}: credentials[{index}]"
    where = (*reader.where, "credentials", index)
    rest = {key: value for key, value in content.items() if key != "weight"}
    table = TableReader(reader.origin, where, label, rest)
    source = _source(reader, table, "credentials", folder)
    if isinstance(source, HeaderSecret):
        raise table.fail("header", "a pool holds our own keys, not a client's header")
    if "weight" not in content:
        return PooledSecret(source)
    values = {"source": source, "weight": content["weight"]}
    return table.make(PooledSecret, values)


def _source(
    reader: TableReader, table: TableReader, key: str, folder: Path
) -> SecretSource:
    kinds = [kind for kind in _KINDS if kind in table.content]
    if not kinds:
        table.check_keys(_KINDS)
    if len(kinds) != 1:
        raise reader.fail(key, f"{key} needs one source; {SHOWN_FIX}")
    [kind] = kinds
    if kind != "provider":
        # Options belong to a provider only.
        others = [name for name in table.content if name in _KINDS]
        table.check_keys(others)
    place = table.content[kind]
    if not isinstance(place, str) or not place.strip():
        raise table.fail(kind, f"{kind} must be a string that is not empty")
    return _made(table, kind, place, folder)


def _made(table: TableReader, kind: str, place: str, folder: Path) -> SecretSource:
    if kind == "env":
        return EnvSecret(place)
    if kind == "file":
        return FileSecret(str(folder / place))
    if kind == "header":
        return table.make(HeaderSecret, {"header": place})
    options = {
        name: _option(value, folder)
        for name, value in table.content.items()
        if name != "provider"
    }
    try:
        return PluginSecret(place, options)
    except InvalidValueError as error:
        raise table.fail("provider", str(error)) from error


def _option(value: object, folder: Path) -> object:
    """Return a provider's option; a table that names a place becomes that place."""
    match value:
        case {"env": str(variable), **rest} if not rest:
            return EnvSecret(variable)
        case {"file": str(path), **rest} if not rest:
            return FileSecret(str(folder / path))
        case _:
            return value
