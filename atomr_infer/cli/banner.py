"""What ``serve`` prints when it is ready: addresses, deployments, a request."""

from __future__ import annotations

import json
import os
import sys
from typing import TYPE_CHECKING

import click

from atomr_infer._version import VERSION

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.model.deployment import Deployment

_LOOPBACK = ("127.", "localhost", "[::1]")


def print_banner(
    plan: ServePlan,
    url: str,
    engines: Mapping[str, Sequence[int]],
    *,
    workers: int = 1,
) -> None:
    """Print the banner on standard output.

    Args:
        plan: what is served.
        url: where.
        engines: process ids of the local engines, by deployment.
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
    lines += ["", *_notices(plan, url), *_curl(plan, url, local), ""]
    lines.append("Ctrl-C stops.")
    try:
        click.echo("\n".join(lines))
    except OSError as error:
        # Whoever reads our output has left; the clients have not.
        print_notice(f"serving {url}; the banner could not be printed: {error}")
        _silence_stdout()


def _silence_stdout() -> None:
    """Let the interpreter's own flush at the end find somewhere to go."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)


_marks = [""]


def mark_notices(mark: str) -> None:
    """Begin each notice of this process with a mark: it is one of several."""
    _marks[0] = mark


def notice_mark() -> str:
    """Return what each notice of this process begins with."""
    return _marks[0]


def print_notice(text: str) -> None:
    """Print one line for the operator on standard error."""
    click.echo(f"atomr-infer: {_marks[0]}{text}", err=True)


def print_line_end() -> None:
    """End a line on standard error that somebody else has begun."""
    click.echo(err=True)


def _notices(plan: ServePlan, url: str) -> list[str]:
    notices = list(plan.notices)
    if not plan.keys and not url.partition("://")[2].startswith(_LOOPBACK):
        notices.append(
            "anyone who can reach this address can use it;"
            ' name keys with keys = [{ env = "NAME" }] under [gateway]'
        )
    return [f"  note: {notice}" for notice in notices] + ([""] if notices else [])


def _curl(plan: ServePlan, url: str, local: Collection[str]) -> list[str]:
    model, whose, hint = _example_model(plan.deployments)
    body: dict[str, object] = {"model": model, "stream": True}
    if whose in local:
        # The likeliest words: a small model is at its best with them.  Models that
        # reason refuse it, and those are elsewhere.
        body["temperature"] = 0
    body["messages"] = [{"role": "user", "content": "Why is the sky blue?"}]
    reachable = url.replace("//0.0.0.0", "//127.0.0.1").replace("//[::]", "//[::1]")
    return [
        f"Try it{hint}:",
        "",
        f"  curl -N {reachable}/v1/chat/completions \\",
        "    -H 'content-type: application/json' \\",
        *_key_line(plan),
        f"    -d '{json.dumps(body)}'",
    ]


def _key_line(plan: ServePlan) -> list[str]:
    if not plan.keys:
        return []
    return ["    -H 'authorization: Bearer KEY' \\"]


def _example_model(deployments: Sequence[Deployment]) -> tuple[str, str, str]:
    """Return a model to ask for, whose it is, and what to say when it is none yet."""
    names = [(name, each.name) for each in deployments for name in each.serves]
    for name, whose in names:
        if "*" not in name:
            return name, whose, ""
    pattern, whose = names[0]
    return "MODEL", whose, f", with a model's name that fits {pattern} for MODEL"
