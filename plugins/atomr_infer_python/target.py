"""Where the user's function or class is: ``python:<module>:<attribute>``.

The module is looked for where Python looks, and then in the working directory; one
that is written as a path, ``python:models/mine.py:answer``, is that file.

What can be known without running it is known before anything starts: its source is
read, not imported, for an import may take minutes and gigabytes.  What only a run
tells (a decorator, a name that is made at import) is checked in the engine's process.
"""

from __future__ import annotations

import ast
import difflib
import hashlib
import importlib
import importlib.util
import os
import sys
import threading
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.runtimes.files import expanded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from importlib.machinery import ModuleSpec

FORM = "python:<module>:<attribute>"
PREFIX = "python"

_FILES = threading.RLock()
"""Held while a file is executed: two deployments may name one at the same time."""

_BLOCKS = ast.If | ast.Try | ast.With | ast.For | ast.While


@attrs.frozen
class Target:
    """A name in a module.

    Attributes:
        module: its dotted name, or the path of a ``.py`` file.
        attribute: what it is called there, with dots for what is inside.
    """

    module: str
    attribute: str

    def __str__(self) -> str:
        """Return it as a deployment writes it, without the prefix."""
        return f"{self.module}:{self.attribute}"

    @property
    def is_file(self) -> bool:
        """Whether the module is named by its file."""
        return self.module.endswith(".py")


def parse_target(runtime: str) -> Target:
    """Return what ``runtime`` names.

    Raises:
        ConfigError: it is not of the form.
    """
    module, _, attribute = runtime.partition(":")[2].rpartition(":")
    target = Target(module.strip(), attribute.strip())
    names = [*target.attribute.split(".")]
    if not target.is_file:
        names += target.module.split(".")
    if not all(name.isidentifier() for name in names):
        own = runtime.partition(":")[0]
        raise ConfigError(
            f"runtime is {runtime!r}; write {own}:<module>:<attribute>, such as "
            f"{own}:my_model:answer, or {own}:models/my_model.py:answer for a file"
        )
    return target


def statement_of(target: Target) -> ast.stmt | None:
    """Return what defines a target in its source; None: only a run tells.

    Raises:
        ConfigError: there is no such module, it is no Python, or it defines no such
            name.
    """
    source = _source(target)
    if source is None:
        return None
    try:
        tree = ast.parse(source.read_bytes(), filename=str(source))
    except (SyntaxError, ValueError) as error:
        raise ConfigError(f"{source} is no Python: {error}") from error
    first, _, rest = target.attribute.partition(".")
    found = dict(_defined(tree.body))
    if first not in found:
        if "*" in found or "__getattr__" in found:
            return None
        raise ConfigError(_no_attribute(target, str(source), first, found))
    return None if rest else found[first]


def load_target(target: Target) -> object:
    """Import the module and return what it has under the name.

    Blocks for as long as the import takes, and runs the module's code.

    Raises:
        ConfigError: there is no such module or name, or the import fails.
    """
    try:
        found: object = _import(target)
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:
        raise ConfigError(
            f"{target.module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
    where = target.module
    for name in target.attribute.split("."):
        if not hasattr(found, name):
            raise ConfigError(_no_attribute(target, where, name, dir(found)))
        found, where = getattr(found, name), f"{where}:{name}"
    return found


# --- the module ---------------------------------------------------------------------


def _import(target: Target) -> object:
    if not target.is_file:
        if _spec(target.module) is None:
            raise ConfigError(_no_module(target.module))
        # Behind everything: a file that is called trio.py must not be taken for trio.
        if (here := str(Path.cwd())) not in sys.path:
            sys.path.append(here)
        return importlib.import_module(target.module)
    with _FILES:
        return _import_file(_file(target))


def _import_file(file: Path) -> object:
    """Execute a file, once: its classes are the same at each look."""
    name = _module_name(file)
    if (known := sys.modules.get(name)) is not None:
        return known
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its own dataclasses look it up, and so does pickle.
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        # The next look is at the file, which may be mended, and not at half of it.
        sys.modules.pop(name, None)
        raise
    return module


def _module_name(file: Path) -> str:
    """Return a name of this file alone, which no import can mean."""
    digest = hashlib.sha256(os.fsencode(file)).hexdigest()
    return f"{file.stem.replace('.', '_')}@{digest[:12]}"


def _source(target: Target) -> Path | None:
    """The file that defines a target's module; None: it is not written in Python."""
    if target.is_file:
        return _file(target)
    spec = _spec(target.module)
    if spec is None:
        raise ConfigError(_no_module(target.module))
    origin = spec.origin
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _file(target: Target) -> Path:
    file = expanded(target.module).absolute()
    if not file.is_file():
        raise ConfigError(f"there is no file {str(file)!r}")
    return file


def _spec(module: str) -> ModuleSpec | None:
    """Find a module without importing anything, its packages neither."""
    first, *parts = module.split(".")
    try:
        spec = importlib.util.find_spec(first)
    except ValueError:  # of a module that was not found but made: __main__
        return None
    spec = spec or PathFinder.find_spec(first, [str(Path.cwd())])
    for part in parts:
        if spec is None or spec.submodule_search_locations is None:
            return None
        # By the part alone: a folder without __init__.py that is inside another one
        # would look for that one among what is imported.
        spec = PathFinder.find_spec(part, list(spec.submodule_search_locations))
    return spec


def _no_module(module: str) -> str:
    places = [*(path for path in sys.path if path), str(Path.cwd())]
    looked = ", ".join(dict.fromkeys(places))
    return (
        f"there is no module {module!r}; looked in {looked}; start where it is, set "
        "PYTHONPATH, or name its file: python:path/to/file.py:name"
    )


# --- the name -----------------------------------------------------------------------


def _defined(body: Iterable[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What statements at a module's top give names to, and by which statement."""
    for statement in body:
        match statement:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield statement.name, statement
            case ast.Import() | ast.ImportFrom():
                for alias in statement.names:
                    yield alias.asname or alias.name.partition(".")[0], statement
            case ast.If() | ast.Try() | ast.With() | ast.For() | ast.While():
                yield from _defined(_inside(statement))
                yield from ((name, statement) for name in _assigned(statement))
            case _:
                yield from ((name, statement) for name in _assigned(statement))


def _inside(statement: _BLOCKS) -> Iterator[ast.stmt]:
    for child in ast.walk(statement):
        if isinstance(child, ast.stmt) and child is not statement:
            yield child


def _assigned(statement: ast.stmt) -> Iterator[str]:
    for node in ast.walk(statement):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def _no_attribute(target: Target, where: str, name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, [*known], n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    return f"{where} has no {name!r} (runtime python:{target}){hint}"
