"""``atomr-infer status`` and ``breaker``: how a running gateway fares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click
from rich.table import Table
from rich.text import Text

from atomr_infer.cli.asking.nodes import Together, tell
from atomr_infer.cli.asking.spending_tables import (
    budgets_table,
    limits_table,
    whole_budgets_table,
)
from atomr_infer.cli.asking.whole_budgets import budgets_of, whole_budgets
from atomr_infer.cli.output.clock import clock
from atomr_infer.cli.output.lines import below, one_line
from atomr_infer.cli.output.tables import print_table
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from atomr_infer.cli.asking.operators import Where


def print_status(where: Where, *, as_json: bool) -> None:
    """Print how a gateway is, in words or as the JSON it answers.

    Raises:
        ConfigError: the gateway cannot be asked.
    """
    together = Together(find=_of_all, show=_show_of_all)
    tell(
        where,
        "GET",
        "status",
        show=_show_status,
        together=together,
        as_json=as_json,
    )


def _of_all(nodes: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"budgets": whole_budgets(dict(budgets_of(nodes)))}


def _show_of_all(whole: Mapping[str, Any]) -> None:
    table = whole_budgets_table(whole["budgets"])
    if table is not None:
        click.echo(click.style("[all nodes together]", bold=True))
        print_table(table)


def _show_status(answer: Any) -> None:  # noqa: ANN401 - JSON
    for line in _of_node(answer):
        click.echo(below(line))
    print_deployments(answer["deployments"])
    for table in (limits_table(answer["limits"]), budgets_table(answer["budgets"])):
        if table is not None:
            click.echo()
            print_table(table)


def print_deployments(deployments: list[Any]) -> None:
    """Print deployments as a table."""
    print_table(_table(deployments))


def _of_node(answer: Any) -> list[str]:  # noqa: ANN401 - JSON
    state = "ready" if answer["ready"] else "not ready"
    if answer.get("draining"):
        state = f"draining; {answer['running']} requests run"
    lines = [f"node {answer['node']}: {state}"]
    if answer["ending"]:
        lines.append(f"ending with their last requests: {', '.join(answer['ending'])}")
    configuration = answer.get("configuration")
    if configuration is not None:
        lines.append(f"configuration: {_configuration(configuration)}")
    for away in answer["away"]:
        since = clock(away["since_s"])
        lines.append(f"node {away['name']}: away since {since}: {away['why']}")
    lines += [f"problem: {problem}" for problem in answer["problems"]]
    return [*lines, ""]


def _configuration(told: Any) -> str:  # noqa: ANN401 - JSON
    if told["state"] == "refused":
        return f"refused since {clock(told['refused_at_s'])}: {told['reason']}"
    return f"{told['source']}, taken {clock(told['taken_at_s'])}"


def print_circuit(where: Where, deployment: str, to: str, *, as_json: bool) -> None:
    """Print a circuit and the steps that led there, or force it first.

    Args:
        where: the gateway.
        deployment: whose circuit.
        to: ``open`` or ``close``; ``show`` leaves it as it is.
        as_json: whether JSON is printed.

    Raises:
        ConfigError: the gateway cannot be asked, or there is no circuit.
    """
    if to == "show":
        asked: tuple[str, ...] = ("GET", "deployments", deployment)
        tell(where, *asked, show=_show_circuit, of=_circuit_of, as_json=as_json)
    else:
        asked = ("POST", "breakers", deployment, to)
        tell(where, *asked, show=_show_forced, as_json=as_json)


def _show_forced(circuit: Any) -> None:  # noqa: ANN401 - JSON
    click.echo(one_line(f"the circuit of {circuit['endpoint']} is {circuit['state']}"))


def _circuit_of(deployment: Any) -> Any:  # noqa: ANN401 - JSON
    circuit = deployment["circuit"]
    if circuit is None:
        name = deployment["name"]
        raise ConfigError(f"{name} asks no endpoint, so it has no circuit")
    return circuit


def _show_circuit(circuit: Any) -> None:  # noqa: ANN401 - JSON
    click.echo(one_line(f"the circuit of {circuit['endpoint']} is {_circuit(circuit)}"))
    for step in circuit["history"]:
        moved = f"{step['before']} -> {step['after']}"
        reason = one_line(step["reason"])
        click.echo(f"  {step['ago_s']:.0f} s ago: {moved} ({reason})")


def _table(deployments: list[Any]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for title in (
        "deployment",
        "runtime",
        "phase",
        "running",
        "waiting",
        "limit",
        "circuit",
        "keys",
    ):
        table.add_column(title, overflow="fold")
    for deployment in deployments:
        table.add_row(*map(Text, _row(deployment)))
    return table


def _row(deployment: Any) -> tuple[str, ...]:  # noqa: ANN401 - JSON
    def total(member: str) -> str:
        return str(sum(replica[member] for replica in deployment["replicas"]))

    circuit = deployment["circuit"]
    return (
        deployment["name"],
        deployment["runtime"],
        deployment["phase"],
        total("running"),
        total("waiting"),
        total("limit"),
        "-" if circuit is None else _circuit(circuit),
        ", ".join(deployment["keys"]) or "-",
    )


def _circuit(circuit: Any) -> str:  # noqa: ANN401 - JSON
    if not circuit["refuses"]:
        return str(circuit["state"])
    wait_s = circuit["retry_after_s"]
    until = "by hand" if wait_s is None else f"{wait_s:.0f} s more"
    return f"{circuit['state']} ({until})"
