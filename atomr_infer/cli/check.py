"""``atomr-infer check``: whether a configuration can work, as far as it is known here.

Everything that ``serve`` looks at before it starts, and nothing that it starts: the
file, the runtimes and their options, that each key is where it is said to be, the
certificate with its key, and what the node and its cluster are made of.  No provider
is asked, and no address is bound.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import click

from atomr_infer.cli.output.lines import below
from atomr_infer.cli.trial import OF_ADMIN
from atomr_infer.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from atomr_infer.cli.plan import ServePlan

_CANNOT_WORK = 1


@attrs.frozen
class Checked:
    """What was found.

    Attributes:
        source: where the configuration came from.
        deployments: the name and the runtime of each.
        notices: what an operator should know of it.
    """

    source: str
    deployments: tuple[tuple[str, str], ...]
    notices: tuple[str, ...]


@click.command()
@click.option(
    "-c",
    "--config",
    "config_path",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="What to check.  [default: the provider keys of the environment]",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
def check(*, config_path: Path | None, as_json: bool) -> None:
    """Say whether a configuration can work; nothing is started and nobody is asked.

    The exit status is 0 when it can, and 1 when it cannot; then what stands in the way
    is said, each mistake in a line, with its place in the file and the remedy.

    \b
    Examples:
      atomr-infer check --config atomr.toml
      atomr-infer check --config atomr.toml --json
    """  # noqa: D301 - click wants the character itself, no backslash and a b
    try:
        found = checked(config_path)
    except ConfigError as error:
        _refuse(error, as_json=as_json)
    if as_json:
        click.echo(json.dumps({"ok": True, **attrs.asdict(found)}, indent=2))
        return
    for name, runtime in found.deployments:
        click.echo(f"{name}: {runtime}")
    for notice in found.notices:
        click.echo(f"note: {notice}")
    click.echo(f"{found.source} can be served")


def _refuse(error: ConfigError, *, as_json: bool) -> None:
    if as_json:
        names = ("message", "path", "line")
        first, *more = [{n: getattr(e, n) for n in names} for e in error.all]
        found = {"ok": False, "error": first, "more": more}
        click.echo(json.dumps(found, indent=2))
    else:
        for line in error.lines:
            click.echo(f"atomr-infer: {below(line)}", err=True)
    sys.exit(_CANNOT_WORK)


def checked(config_path: Path | None) -> Checked:
    """Look at a configuration.

    Raises:
        ConfigError: it cannot work.
    """
    # Late: `atomr-infer --help` must not wait for the runtimes.
    from atomr_infer.cli.plan import (  # noqa: PLC0415
        examine_file,
        plan_serving,
        refuse_itself,
    )
    from atomr_infer.cli.serving.cluster_files import (  # noqa: PLC0415
        check_cluster_files,
        node_of,
    )
    from atomr_infer.cli.serving.missing_files import (  # noqa: PLC0415
        missing_models,
    )
    from atomr_infer.cli.serving.other_state import other_state  # noqa: PLC0415
    from atomr_infer.cli.serving.reload import tls_of  # noqa: PLC0415
    from atomr_infer.config.mistakes import Mistakes  # noqa: PLC0415

    if config_path is None:
        plan, mistakes = plan_serving(config_path=None, bind=None), Mistakes()
        sound = frozenset(each.name for each in plan.deployments)
    else:
        mistakes = Mistakes()
        examined = examine_file(config_path, os.environ, mistakes)
        plan, sound = examined.plan, examined.sound
    missing: list[str] = []
    for name in (each.name for each in plan.deployments if each.name in sound):
        with mistakes.kept():
            missing += missing_models(plan, (name,))
    files: tuple[str, ...] = ()
    with mistakes.kept(), _placed(plan):
        _check_admin(plan)
    with mistakes.kept(), _placed(plan):
        tls_of(plan.gateway)
    with mistakes.kept(), _placed(plan):
        files = check_cluster_files(plan, os.environ)
        node_of(plan, os.environ)
    with mistakes.kept():
        _check_own(plan)
    if not mistakes:
        # Of what the deployments are together, and at which address.
        with mistakes.kept():
            missing += _uncounted_gpus(plan)
        with mistakes.kept():
            refuse_itself(plan)
    mistakes.tell()
    return Checked(
        source=plan.source,
        deployments=tuple((d.name, d.runtime) for d in plan.deployments),
        notices=(
            *plan.notices,
            *files,
            *missing,
            *_unbounded_budgets(plan),
            *other_state(plan, workers=1),
        ),
    )


@contextmanager
def _placed(plan: ServePlan) -> Iterator[None]:
    """Have what is wrong with a setting said with its line, where there is a file."""
    try:
        yield
    except ConfigError as error:
        if plan.origin is not None and error.path is None:
            where = ("gateway", error.setting) if error.setting else ("cluster",)
            error.path = plan.origin.path
            error.line = plan.origin.positions.line(where)
        raise


def _check_own(plan: ServePlan) -> None:
    """Refuse an admin key that opens the gateway as well."""
    if plan.admin_key is not None and plan.admin_key in plan.keys:
        raise ConfigError(
            "the admin key is one of the gateway's keys, so each client could use it; "
            "give the operators one of their own",
            path=None if plan.origin is None else plan.origin.path,
        )


def _unbounded_budgets(plan: ServePlan) -> Iterator[str]:
    """Say what budgets would refuse for want of a bound, where no provider has one.

    Providers' prices, and how long their models' answers are, are in tables.
    """
    from atomr_infer.model.budget import OnExceeded  # noqa: PLC0415
    from atomr_infer.runtimes.contract import HasEndpoint  # noqa: PLC0415
    from atomr_infer.runtimes.loader import load_runtime  # noqa: PLC0415

    for deployment in plan.deployments:
        hard = [b for b in deployment.budget if b.on_exceeded is not OnExceeded.WARN]
        plugin = load_runtime(deployment.runtime)
        asked = plugin.endpoint(deployment) if isinstance(plugin, HasEndpoint) else None
        if not hard or (asked is not None and asked.startswith("https://")):
            continue
        told = f"deployment {deployment.name!r} has a budget"
        if deployment.default_max_tokens is None:
            yield (
                f"{told}: where its model has no longest answer, a request without "
                "max_tokens is refused; default_max_tokens gives it a bound"
            )
        if deployment.price is None and any(b.usd is not None for b in hard):
            yield (
                f"{told} in dollars, and nobody knows what it costs: all that is asked "
                "is refused; write [deployment.price]"
            )


def _uncounted_gpus(plan: ServePlan) -> Iterator[str]:
    """Say why GPUs that are asked for are not counted; with other nodes none are.

    Raises:
        ConfigError: this machine has too few for all that ask for some.
    """
    from atomr_infer.cli.serving.missing_files import (  # noqa: PLC0415
        at_deployment,
    )
    from atomr_infer.serving.inventory import read_inventory  # noqa: PLC0415
    from atomr_infer.serving.placing.seating import (  # noqa: PLC0415
        counts,
        placed_here,
        refuse_missing,
    )

    if plan.cluster is not None or not any(map(counts, plan.deployments)):
        return
    inventory = read_inventory(os.environ)
    if not inventory.is_known:
        yield f"GPUs are asked for and not counted: {inventory.note}"
        return
    placed = placed_here(plan.deployments, inventory)
    for index, deployment in enumerate(plan.deployments):
        if deployment.name in placed:
            try:
                refuse_missing(placed[deployment.name], inventory)
            except ConfigError as error:
                told = error.message
                raise at_deployment(plan, index, told, "placement") from error


def _check_admin(plan: ServePlan) -> None:
    """Refuse an admin key where its routes could not be opened."""
    missing = [name for name in OF_ADMIN if importlib.util.find_spec(name) is None]
    if plan.admin_key is not None and missing:
        raise ConfigError(
            f"the admin routes need {missing[0]}: pip install 'atomr-infer[admin]'",
            setting="admin_key",
        )
