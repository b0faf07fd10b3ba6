"""A configuration that was changed becomes that of a server that runs.

SIGHUP, the file's change and ``POST /admin/reload`` are one: the configuration is
read and checked as at the start, and then taken whole or not at all.

1. What is new is deployed, as at the start; nobody could ask it before.
2. What has changed is replaced, all of it in one step, when its new engines serve;
   but what has ``hot_swap`` begins to be taken over, and that may still go back.
3. The gateway's own settings change with it, in the same step.
4. What was taken out is nobody's any more, and ends with its last request.

On a node of a cluster the first two and the last are the catalogue's: what this file
says is put into it, and every node does its share.  A swap is begun by one of the nodes
whose files say the same (:mod:`atomr_infer.serving.swapping.declared`).

Where 1 or 2 fails, what was new goes again, and all is as it was.  The last file that
was refused is remembered until one is taken: ``atomr-infer status`` shows it.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

import attrs
import trio

from atomr import telemetry
from atomr.errors import AtomrError
from atomr_infer.cli.output.banner import print_notice
from atomr_infer.cli.serving.changed_limits import changed_limits
from atomr_infer.cli.serving.failures import said_with_line
from atomr_infer.cli.serving.missing_files import missing_to_load
from atomr_infer.config.differences import (
    Difference,
    Field,
    Kind,
    changed_fields,
    deployment_differences,
    table_differences,
)
from atomr_infer.errors import ConfigError, InferenceError
from atomr_infer.gateway.listening.server_tls import server_context
from atomr_infer.model.budget import budgets_by_name
from atomr_infer.serving.placing.orders import Orders

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.cluster import Cluster
    from atomr_infer.config.gateway import GatewayConfig
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.gateway.setup import Setup
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.placing.alone import LocalOrders

log = logging.getLogger(__name__)

# What a listening socket and an open file are made of.
_BOUND = ("bind", "admin_bind", "response_store")


@attrs.frozen
class Refused:
    """A configuration that was not taken.

    Attributes:
        reason: one sentence, with file and line.
        at_epoch_s: when, by the wall clock.
    """

    reason: str
    at_epoch_s: float


@attrs.frozen
class Reloaded:
    """What came of a reload.

    Attributes:
        differences: between what ran and what the configuration says.
        refused: why nothing was taken; None: it was.
        notes: what is missing here and may be on other machines, and what the cluster
            makes of it, where that is not what the configuration
            says, or takes its time.
    """

    differences: tuple[Difference, ...] = ()
    refused: str | None = None
    notes: tuple[str, ...] = ()


def differences(running: ServePlan, wanted: ServePlan) -> tuple[Difference, ...]:
    """Compare what runs with what the configuration says now."""
    found = list(deployment_differences(running.deployments, wanted.deployments))
    found += _of_gateway(running, wanted)
    teams = ({team.name: team for team in plan.teams} for plan in (running, wanted))
    found += table_differences("[[team]]", *teams)
    budgets = (budgets_by_name(plan.budgets) for plan in (running, wanted))
    found += table_differences("[[budget]]", *budgets)
    for table in ("node", "cluster"):
        before, after = getattr(running, table), getattr(wanted, table)
        if before != after:
            fields = changed_fields(before, after)
            found.append(Difference(Kind.CHANGED, f"[{table}]", fields, later=True))
    return tuple(found)


def _of_gateway(running: ServePlan, wanted: ServePlan) -> list[Difference]:
    fields = changed_fields(running.gateway, wanted.gateway)
    later = tuple(field for field in fields if field.name in _BOUND)
    now = [field for field in fields if field.name not in _BOUND]
    told = {field.name for field in now}
    for name, before, after in (
        ("keys", running.keys, wanted.keys),
        ("admin_key", running.admin_key, wanted.admin_key),
    ):
        if before != after and name not in told:
            now.append(Field(name, "a key", "another key"))
    what = "[gateway]"
    found = [Difference(Kind.CHANGED, what, tuple(now))] if now else []
    if later:
        found.append(Difference(Kind.CHANGED, what, later, later=True))
    return found


def tls_of(gateway: GatewayConfig) -> ssl.SSLContext | None:
    """Return what connections begin with; None: no TLS.

    Raises:
        ConfigError: certificate or key cannot be used.
    """
    if gateway.certificate is None or gateway.private_key is None:
        return None
    return server_context(gateway.certificate, gateway.private_key)


class Reloader:
    """The configuration of a server that runs.

    Attributes:
        plan: what it runs.
        refused: the last configuration, if it was not taken.
        taken_at_epoch_s: when what runs was taken, by the wall clock.
    """

    def __init__(
        self,
        cluster: Cluster,
        gateway: Gateway,
        plan: ServePlan,
        again: Callable[[], ServePlan],
        nursery: trio.Nursery,
    ) -> None:
        """Start with what runs.

        Args:
            cluster: what serves.
            gateway: at which address.
            plan: what is served.
            again: reads the configuration; called in a thread.
            nursery: where what was taken out ends.
        """
        self.plan = plan
        self.refused: Refused | None = None
        self.taken_at_epoch_s = time.time()
        self._cluster = cluster
        self._gateway = gateway
        self._again = again
        self._nursery = nursery
        self._ending: dict[str, trio.Event] = {}
        self._one_at_a_time = trio.Lock()

    async def reload(
        self, cause: str, *, dry_run: bool = False, quiet: bool = False
    ) -> Reloaded:
        """Read the configuration anew, and take it.

        Args:
            cause: why, for what the operator is told.
            dry_run: True changes nothing, and tells nobody.
            quiet: True tells nobody where nothing has changed.

        Cancellation: deployments are as they were, or all as the file says.
        """
        async with self._one_at_a_time:
            found: tuple[Difference, ...] = ()
            notes: tuple[str, ...] = ()
            try:
                wanted = await trio.to_thread.run_sync(self._again)
                tls = await trio.to_thread.run_sync(tls_of, wanted.gateway)
                found = differences(self.plan, wanted)
                setup = self._setup(wanted, tls)
                runs = self._running()
                notes = await trio.to_thread.run_sync(missing_to_load, wanted, runs)
                if not dry_run:
                    notes += await self._take(wanted, setup)
            except (ConfigError, InferenceError) as error:
                if not dry_run:
                    self._refuse(cause, str(error))
                return Reloaded(found, str(error))
            except Exception as error:
                # A boundary: whatever is wrong with us, what runs goes on.
                log.exception("%s: the configuration could not be taken", cause)
                told = f"internal error, which the log shows: {error}"
                if not dry_run:
                    self._refuse(cause, told)
                return Reloaded(found, told)
            if not dry_run:
                self._tell(cause, found, notes, quiet=quiet)
            return Reloaded(found, notes=notes)

    def _setup(self, wanted: ServePlan, tls: ssl.SSLContext | None) -> Setup:
        try:
            return self._cluster.setup(
                wanted.gateway, keys=wanted.keys, admin_key=wanted.admin_key, tls=tls
            )
        except ConfigError as error:
            if wanted.origin is not None and error.path is None:
                error.path = wanted.origin.path
                error.line = wanted.origin.positions.line(("gateway", "admin_key"))
            raise

    def _running(self) -> dict[str, Deployment]:
        """Return what the file had that is taken, and that is still there, by name."""
        there = self._cluster.readiness().phases
        return {d.name: d for d in self.plan.deployments if d.name in there}

    async def _take(self, wanted: ServePlan, setup: Setup) -> tuple[str, ...]:
        """Take a configuration; return what the catalogue makes of it."""
        runs = self._running()
        names = [deployment.name for deployment in wanted.deployments]
        new = [d for d in wanted.deployments if d.name not in runs]
        other = [d for d in wanted.deployments if runs.get(d.name, d) != d]
        gone = [name for name in runs if name not in names]
        notes: tuple[str, ...] = ()
        orders = self._cluster.orders
        if isinstance(orders, Orders):
            gone = []  # the catalogue says so, and each node does its share
            with self._cluster.at_home():
                notes = orders.declare(
                    wanted.deployments, swaps=self._cluster.hot_swaps.declared
                )
            notes = (*notes, *changed_limits(self.plan, wanted))
        else:
            with said_with_line(wanted):
                await self._serve(orders, new, other, names)
        # From here to the end nothing waits, and nothing can fail.
        self._gateway.change(setup)
        self._cluster.key_ring.take_teams(wanted.teams)
        self._cluster.budgets.take(wanted.budgets)
        bound = {name: getattr(self.plan.gateway, name) for name in _BOUND}
        self.plan = attrs.evolve(
            wanted,
            gateway=attrs.evolve(wanted.gateway, **bound),
            node=self.plan.node,
            cluster=self.plan.cluster,
        )
        self._remove(gone)
        return notes

    async def _serve(
        self,
        orders: LocalOrders,
        new: list[Deployment],
        other: list[Deployment],
        names: list[str],
    ) -> None:
        started: list[str] = []
        done = False
        # One whose namesake still has its GPUs is given its own after that one's end.
        # What runs under a name, as a program had it, keeps its own: "exists already".
        taken = {*self._ending, *(each.name for each in self._cluster.deployments())}
        at_hand = [each for each in new if each.name not in taken]
        try:
            # Each for itself would take what another one needs, in any order.
            async with orders.seated(at_hand):
                await self._deploy(new, names, started)
            swapped = [each for each in other if self._is_swapped(each)]
            at_once = [each for each in other if each not in swapped]
            if at_once:
                await self._cluster.replace(*at_once, expected=names)
            done = True
            for each in swapped:
                await self._swap(each)
        finally:
            if not done:
                self._remove(started)

    def _is_swapped(self, wanted: Deployment) -> bool:
        """Whether a deployment is to take over step by step from the one that runs."""
        [now] = [each for each in self.plan.deployments if each.name == wanted.name]
        return self._cluster.hot_swaps.is_swapped(now, wanted)

    async def _swap(self, wanted: Deployment) -> None:
        try:
            with self._cluster.at_home():
                await self._cluster.hot_swaps.begin(wanted, None, None)
        except (ConfigError, InferenceError) as error:
            # The rest of the file is taken already.
            print_notice(f"{wanted.name} is not swapped: {error}")
        else:
            told = f"atomr-infer swap {wanted.name} show"
            print_notice(
                f"{wanted.name} is being swapped; `{told}` tells how far it is"
            )

    async def _deploy(
        self, new: Iterable[Deployment], names: list[str], started: list[str]
    ) -> None:
        """Start all at once, so that a remote one does not wait for a local one."""
        failure: ConfigError | InferenceError | None = None
        async with trio.open_nursery() as nursery:

            async def start(deployment: Deployment) -> None:
                nonlocal failure
                ending = self._ending.get(deployment.name)
                if ending is not None:
                    await ending.wait()  # one of its name was just taken out
                try:
                    await self._cluster.deploy(deployment, expected=names)
                except (ConfigError, InferenceError) as error:
                    failure = failure or error
                    nursery.cancel_scope.cancel()
                else:
                    started.append(deployment.name)

            for deployment in new:
                nursery.start_soon(start, deployment)
        if failure is not None:
            raise failure

    def _remove(self, names: Iterable[str]) -> None:
        for name in names:
            self._ending[name] = trio.Event()
            self._nursery.start_soon(self._end, name)

    async def _end(self, name: str) -> None:
        drain_s = self.plan.gateway.drain_timeout_s
        try:
            await self._cluster.undeploy(name, drain_s=drain_s)
        except AtomrError as error:
            # The file is taken, and what runs goes on; a manager that comes after one
            # that crashed ends what it was at.
            print_notice(f"{name}: its end was not seen: {error}")
        else:
            print_notice(f"{name} has ended")
        finally:
            self._ending.pop(name).set()

    def _refuse(self, cause: str, reason: str) -> None:
        self.refused = Refused(reason, time.time())
        print_notice(f"{cause}: the configuration is not taken: {reason}")
        self._emit("refused", {"cause": cause, "reason": reason})

    def _tell(
        self,
        cause: str,
        found: tuple[Difference, ...],
        notes: tuple[str, ...],
        *,
        quiet: bool,
    ) -> None:
        self.refused, self.taken_at_epoch_s = None, time.time()
        for line in (*(difference.line for difference in found), *notes):
            print_notice(f"{cause}: {line}")
        if not (found or notes or quiet):
            print_notice(f"{cause}: nothing in the configuration has changed")
        self._emit("taken", {"cause": cause, "differences": len(found)})

    def _emit(self, what: str, about: dict[str, object]) -> None:
        telemetry.emit(("atomr_infer", "configuration", what), {}, about)
