"""What ``serve`` prints when it is ready: addresses, deployments, a request."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from atomr_infer._version import VERSION
from atomr_infer.cli.output.closed_pipe import silence_stdout
from atomr_infer.cli.output.first_request import first_request
from atomr_infer.cli.output.lines import below

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from atomr_infer.cli.output.first_request import FirstRequest
    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.model.capabilities import Feature

_LOOPBACK = ("127.", "localhost", "[::1]")


def print_banner(
    plan: ServePlan,
    url: str,
    engines: Mapping[str, Sequence[int]],
    *,
    features: Mapping[str, Collection[Feature]] | None = None,
    workers: int = 1,
) -> None:
    """Print the banner on standard output.

    Args:
        plan: what is served.
        url: where.
        engines: process ids of the local engines, by deployment.
        features: what those can do that run here, by deployment.
        workers: how many processes serve.
    """
    by = "" if workers == 1 else f" with {workers} workers"
    lines = ["", f"atomr-infer {VERSION} serves {url}{by}", f"  from {plan.source}"]
    lines.append("")
    width = max(len(deployment.name) for deployment in plan.deployments)
    for deployment in plan.deployments:
        pids = engines.get(deployment.name, ())
        where = f"  engine pid {', '.join(map(str, pids))}" if pids else ""
        serves = ", ".join(deployment.serves)
        lines.append(
            f"  {deployment.name:<{width}}  {deployment.runtime}  models: "
            f"{serves}{where}"
        )
    local = frozenset(name for name, pids in engines.items() if pids)
    first = first_request(plan.deployments, features or {}, local)
    lines += ["", *_notices(plan, url), *_try_it(plan, url, first), ""]
    if plan.trial is not None:
        lines += ["Look at it:", "", f"  {plan.trial.command(url)}", ""]
    lines.append("Ctrl-C stops.")
    try:
        click.echo("\n".join(lines))
    except OSError as error:
        # Whoever reads our output has left; the clients have not.
        print_notice(f"serving {url}; the banner could not be printed: {error}")
        silence_stdout()


_marks = [""]


def mark_notices(mark: str) -> None:
    """Begin each notice of this process with a mark: it is one of several."""
    _marks[0] = mark


def notice_mark() -> str:
    """Return what each notice of this process begins with."""
    return _marks[0]


def print_notice(text: str) -> None:
    """Print a notice for the operator on standard error.

    Where nobody reads that any more, as when ``tee`` was killed, it is dropped, as is
    all that is written there (:mod:`atomr_infer.cli.output.closed_pipe`): the gateway
    serves its clients.

    Args:
        text: one line; what goes on below it, such as a file's other mistakes, is
            indented.  What is not seen in it is escaped: an upstream may have said it.
    """
    click.echo(f"atomr-infer: {_marks[0]}{below(text)}", err=True)


def print_line_end() -> None:
    """End a line on standard error that somebody else has begun."""
    click.echo(err=True)


def _notices(plan: ServePlan, url: str) -> list[str]:
    notices = list(plan.notices)
    if not _needs_key(plan) and not url.partition("://")[2].startswith(_LOOPBACK):
        notices.append(
            "anyone who can reach this address can use it;"
            ' name keys with keys = [{ env = "NAME" }] under [gateway]'
        )
    return [f"  note: {notice}" for notice in notices] + ([""] if notices else [])


def _try_it(plan: ServePlan, url: str, first: FirstRequest) -> list[str]:
    reachable = url.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")
    lines = first.lines(reachable, has_keys=_needs_key(plan))
    hint = first.hint
    if _needs_key(plan):
        hint += " and" if hint else ", with"
        hint += f" {_whose_key(plan)} for KEY"
    return [f"Try it{hint}:", "", *lines]


def _needs_key(plan: ServePlan) -> bool:
    return bool(plan.keys) or plan.gateway.virtual_keys


def _whose_key(plan: ServePlan) -> str:
    if plan.keys:
        return "a key of this gateway"
    return "a key that `atomr-infer keys create` makes"
