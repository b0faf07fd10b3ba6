"""Code that is broken on purpose: do the scenarios notice?

A mutant is one function with one line changed.  It is changed in place, so that
each caller gets it, and put back at the end of the block.
"""

from __future__ import annotations

import ast
import inspect
from contextlib import contextmanager
from textwrap import dedent
from types import CodeType, FunctionType
from typing import TYPE_CHECKING

from atomr.testing.simulation.engine import SimulationError
from atomr.testing.simulation.scenario import play

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from atomr.testing.simulation.scenario import Scenario


@contextmanager
def mutated(function: Callable[..., object], old: str, new: str) -> Iterator[None]:
    """Let a function read ``new`` where it reads ``old``, inside the block.

    Args:
        function: plain, or a method looked up on its class; no closure, and no
            ``super()``.
        old: part of its source that occurs there once.
        new: what it reads instead, indented as ``old`` is.

    Raises:
        SimulationError: ``old`` is not there once, or the function cannot be
            changed.
    """
    if not isinstance(function, FunctionType) or function.__closure__:
        raise SimulationError(f"mutated({function!r}): expected a plain function")
    source = dedent(inspect.getsource(function))
    if source.count(old) != 1:
        times = source.count(old)
        name = function.__qualname__
        raise SimulationError(f"mutated({name}): {old!r} is there {times} times, not 1")
    before = function.__code__
    function.__code__ = _compiled(source.replace(old, new), before)
    try:
        yield
    finally:
        function.__code__ = before


def _compiled(source: str, before: CodeType) -> CodeType:
    tree = ast.parse(source)
    definition = tree.body[0]
    if isinstance(definition, ast.FunctionDef):
        definition.decorator_list.clear()
    flags = before.co_flags & _FUTURE_ANNOTATIONS
    module = compile(tree, before.co_filename, "exec", flags, dont_inherit=True)
    codes = [code for code in module.co_consts if isinstance(code, CodeType)]
    [code] = [code for code in codes if code.co_name == before.co_name]
    return code


_FUTURE_ANNOTATIONS = 0x1000000
"""``from __future__ import annotations``: they are not evaluated."""


def first_failure(scenario: Scenario, seeds: Iterable[int]) -> int | None:
    """Return the first seed whose run fails; None: all hold."""
    for seed in seeds:
        if play(scenario, seed).error is not None:
            return seed
    return None
