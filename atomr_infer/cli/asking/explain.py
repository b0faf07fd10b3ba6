"""``atomr-infer explain``: where deployments run, and why not elsewhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from atomr_infer.cli.asking.of_a_gateway import as_json, fail, of_a_gateway, where
from atomr_infer.cli.output.lines import one_line
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.cli.asking.operators import Where


@click.command()
@click.argument("name", required=False, metavar="[DEPLOYMENT|MODEL]")
@click.option(
    "--dry-run",
    "file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Say where the deployments of this configuration would run.",
)
@as_json
@of_a_gateway
def explain(
    *,
    name: str | None,
    file: Path | None,
    config_path: Path | None,
    url: str | None,
    as_json: bool,
) -> None:
    """Show where deployments run, by which runtime, and why not on other nodes.

    Any node of a cluster can be asked, and shows the same.  With --dry-run
    nothing is changed.

    \b
    Examples:
      atomr-infer explain --config atomr.toml
      atomr-infer explain gpt-5 --config atomr.toml --json
      atomr-infer explain --dry-run next.toml --config atomr.toml
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    if name is not None and file is not None:
        raise click.UsageError("--dry-run FILE and a name exclude each other")
    try:
        asked = where(config_path, url)
        if file is None:
            print_explanation(asked, name, as_json=as_json)
        else:
            print_dry_run(asked, file, as_json=as_json)
    except ConfigError as error:
        fail(error)


def print_explanation(gateway: Where, name: str | None, *, as_json: bool) -> None:
    """Print where a deployment, a model's deployments, or all of them run.

    Args:
        gateway: a node's; any node's does.
        name: a deployment, or a public model name; None: all.
        as_json: print what the node answers.

    Raises:
        ConfigError: the gateway cannot be asked, or there is nothing of that name.
    """
    from atomr_infer.cli.asking.operators import ask  # noqa: PLC0415

    answer = ask(gateway, "GET", "placement", *([] if name is None else [name]))
    if as_json:
        click.echo(json.dumps(answer, indent=2))
        return
    lines = [line for each in answer["deployments"] for line in _told(each)]
    click.echo("\n".join(map(one_line, lines)) or "nothing is deployed")


def print_dry_run(gateway: Where, path: Path, *, as_json: bool) -> None:
    """Print where the deployments of a configuration would run; changes nothing.

    For a deployment that names no runtime, the one that was chosen comes first, and
    why.

    Args:
        gateway: a node's; any node's does.
        path: the configuration.
        as_json: print what the node answers.

    Raises:
        ConfigError: the file or the gateway cannot be read, or one of the
            deployments cannot work.
    """
    from atomr_infer.cli.asking.operators import ask  # noqa: PLC0415
    from atomr_infer.config.deployment_table import deployment_table  # noqa: PLC0415
    from atomr_infer.config.load import load_config  # noqa: PLC0415

    config = load_config(path)
    tables = [deployment_table(each) for each in config.deployments]
    answers = [ask(gateway, "POST", "placement", "explain", body=t) for t in tables]
    if as_json:
        told = {"deployments": answers, "chosen": list(config.chosen)}
        click.echo(json.dumps(told, indent=2))
        return
    for sentence in config.chosen:
        click.echo(sentence)
    for answer in answers:
        click.echo("\n".join(map(one_line, _planned(answer))))


def _told(deployment: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    name, state = deployment["name"], deployment["state"]
    copies = deployment["replicas"]
    where = "on each node" if deployment["everywhere"] else "in all"
    yield f"{name}: {state}; {_replicas(copies)} {where}"
    because = deployment["runtime_because"]
    yield f"  runtime {deployment['runtime']}" + (
        f", because {because}" * bool(because)
    )
    if deployment["reason"]:
        yield f"  because {deployment['reason']}"
    for share in deployment["nodes"]:
        seen = "" if share["in_sight"] else ", out of sight"
        gpus = _gpus(share["gpus"])
        running = f"{share['serving']} of {_replicas(share['replicas'])}"
        yield f"  {share['node']}: {share['state']}, {running}{gpus}{seen}"
    yield from _passed(deployment["passed"])
    for conflict in deployment["conflicts"]:
        yield f"  conflict: {conflict}"


def _planned(answer: Any) -> Iterator[str]:  # noqa: ANN401 - JSON
    missing = answer["missing"]
    lacking = f"; {_replicas(missing)} would find no place" if missing else ""
    yield f"{answer['name']}: would run as follows{lacking}"
    for node in answer["nodes"]:
        yield f"  {node['node']}: {_replicas(node['replicas'])}{_gpus(node['gpus'])}"
    yield from _passed(answer["passed"])


def _passed(passed: list[Any]) -> Iterator[str]:
    for each in passed:
        yield f"  not {each['node']}: {each['detail']}"


def _gpus(replicas: list[list[int]]) -> str:
    taken = [number for gpus in replicas for number in gpus]
    return f", GPU {', '.join(map(str, taken))}" if taken else ""


def _replicas(count: int) -> str:
    return f"{count} replica{'' if count == 1 else 's'}"
