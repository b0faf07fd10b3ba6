"""What the operators' commands print: of the node that is asked, or of all of them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import attrs
import click

from atomr_infer.cli.asking.operators import ask, ask_all
from atomr_infer.cli.output.lines import below, one_line
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from atomr_infer.cli.asking.operators import Where

_GOOD = range(200, 300)
_NOT_THERE = 404
_NO_QUERY: Mapping[str, str] = {}


def _all_of_it(answer: Any) -> Any:  # noqa: ANN401 - JSON
    return answer


@attrs.frozen
class Together:
    """What is told of all nodes together, before each of them.

    Attributes:
        find: makes it of what each node answers, by its name: JSON.
        show: prints it.
    """

    find: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    show: Callable[[Mapping[str, Any]], None]


def tell(  # noqa: PLR0913 - most by keyword
    where: Where,
    method: str,
    *path: str,
    show: Callable[[Any], None],
    of: Callable[[Any], Any] = _all_of_it,
    together: Together | None = None,
    as_json: bool = False,
    query: Mapping[str, str] = _NO_QUERY,
    timeout_s: float = 10.0,
) -> None:
    """Ask a route, and print what it answers.

    Args:
        where: the gateway, and whether all of its cluster's nodes are meant.
        method: in upper case.
        path: the segments behind ``/admin``.
        show: prints one node's answer.
        of: what of it is meant.
        together: what is told of all of them first; None: nothing.
        as_json: whether JSON is printed instead.
        query: names and values.
        timeout_s: how long the answer may take.

    Raises:
        ConfigError: the gateway refuses it, or no gateway answers.
        SystemExit: a node could not do it, which has been printed.
    """
    if not where.all_nodes:
        answer = of(ask(where, method, *path, query=query, timeout_s=timeout_s))
        if as_json:
            click.echo(json.dumps(answer, indent=2))
        else:
            show(answer)
        return
    nodes = ask_all(where, method, *path, query=query, timeout_s=timeout_s)
    for done in nodes.values():
        if done["status"] in _GOOD:
            _take_part(done, of)
    whole = {} if together is None else together.find(nodes)
    if as_json:
        click.echo(json.dumps({**whole, "nodes": nodes}, indent=2))
    else:
        if together is not None:
            together.show(whole)
        for name, done in nodes.items():
            _print_node(name, done, show)
    if not all(done["status"] in _GOOD for done in nodes.values()):
        sys.exit(1)


def _take_part(done: dict[str, Any], of: Callable[[Any], Any]) -> None:
    """Put what is meant in place of a node's answer; what is not there is its error."""
    try:
        done["answer"] = of(done["answer"])
    except ConfigError as error:
        told = {"message": str(error), "code": "not_there"}
        done.update(status=_NOT_THERE, answer={"error": told})


def _print_node(name: str, done: Any, show: Callable[[Any], None]) -> None:  # noqa: ANN401 - JSON
    click.echo(click.style(one_line(f"[{name}]"), bold=True))
    if done["status"] in _GOOD:
        show(done["answer"])
    else:
        click.echo(below(f"refused: {done['answer']['error']['message']}"))
