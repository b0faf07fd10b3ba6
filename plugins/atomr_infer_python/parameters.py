"""What a function or class takes, and whether a deployment's options are that.

Pure.
"""

from __future__ import annotations

import ast
import difflib
import inspect
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping


@attrs.frozen
class Parameters:
    """The options that a function or a class takes.

    Attributes:
        options: their names; of a function, without the request.
        required: those without a default.
        takes_any: whether others are taken too (``**options``).
        takes_request: whether there is a place for the request.
        of_class: whether they are a class's.
    """

    options: frozenset[str]
    required: frozenset[str] = frozenset()
    takes_any: bool = False
    takes_request: bool = True
    of_class: bool = False


def check_options(what: str, parameters: Parameters, options: Collection[str]) -> None:
    """Refuse options that would not be taken, and the want of those that must be.

    Raises:
        ConfigError: names the option.
    """
    if not parameters.of_class and not parameters.takes_request:
        raise ConfigError(
            f"{what} takes no request; write it as: async def answer(request): ..."
        )
    for name in options:
        if name not in parameters.options and not parameters.takes_any:
            near = difflib.get_close_matches(name, parameters.options, n=1)
            known = ", ".join(sorted(parameters.options)) or "none"
            hint = f"did you mean {near[0]!r}?" if near else f"it takes: {known}"
            raise ConfigError(f"{what} takes no option {name!r}; {hint}")
    for name in sorted(parameters.required - set(options)):
        raise ConfigError(
            f"{what} needs the option {name!r}; write it under [deployment.options]"
        )


def parameters_in_source(statement: ast.stmt) -> Parameters | None:
    """Return what a definition says that it takes; None: it does not say it."""
    match statement:
        case (
            ast.FunctionDef(decorator_list=[]) | ast.AsyncFunctionDef(decorator_list=[])
        ):
            return _of_arguments(statement.args, of_class=False)
        case ast.ClassDef(decorator_list=[]):
            for inner in statement.body:
                if isinstance(inner, ast.FunctionDef) and inner.name == "__init__":
                    return _of_arguments(inner.args, of_class=True)
            if statement.bases or statement.keywords:
                return None  # its parent may say it
            return Parameters(frozenset(), of_class=True)
        case _:
            return None


def _of_arguments(arguments: ast.arguments, *, of_class: bool) -> Parameters:
    by_place = [one.arg for one in (*arguments.posonlyargs, *arguments.args)]
    with_default = by_place[len(by_place) - len(arguments.defaults) :]
    by_name = {one.arg for one in arguments.kwonlyargs}
    optional = {
        one.arg
        for one, default in zip(
            arguments.kwonlyargs, arguments.kw_defaults, strict=True
        )
        if default is not None
    }
    # The first one is the request, or self.
    only_by_place = {one.arg for one in arguments.posonlyargs}
    options = (set(by_place[1:]) - only_by_place) | by_name
    return Parameters(
        options=frozenset(options),
        required=frozenset(options - set(with_default) - optional),
        takes_any=arguments.kwarg is not None,
        takes_request=bool(by_place) or arguments.vararg is not None,
        of_class=of_class,
    )


def parameters_of(target: Callable[..., object]) -> Parameters | None:
    """Return what something that is there takes; None: it does not say it."""
    of_class = isinstance(target, type)
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return None
    found = list(signature.parameters.values())
    by_place = [one for one in found if one.kind in _BY_PLACE]
    # A class's signature is without self already.
    request = None if of_class or not by_place else by_place[0]
    options = {
        one.name: one for one in found if one.kind in _BY_NAME and one is not request
    }
    kinds = {one.kind for one in found}
    return Parameters(
        options=frozenset(options),
        required=_required(options),
        takes_any=inspect.Parameter.VAR_KEYWORD in kinds,
        takes_request=bool(by_place) or inspect.Parameter.VAR_POSITIONAL in kinds,
        of_class=of_class,
    )


_BY_PLACE = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)
_BY_NAME = (
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
    inspect.Parameter.KEYWORD_ONLY,
)


def _required(options: Mapping[str, inspect.Parameter]) -> frozenset[str]:
    empty = inspect.Parameter.empty
    return frozenset(name for name, one in options.items() if one.default is empty)
