"""``atomr-infer serve``: start, show, wait for a signal, drain.

The port is bound first, so that a busy one is reported at once and not after
minutes of loading.  While models load, the gateway answers already: health is
200, readiness 503, and requests wait in their deployment's queue.  All load at
once, so that a remote one does not wait for a local one.  One that cannot be started
keeps no other one from serving, and is tried again.

The first Ctrl-C or SIGTERM drains; a second one does not wait.  SIGHUP has keys and
configuration read anew (:mod:`atomr_infer.cli.serving.hangup`).
"""

from __future__ import annotations

import gc
import os
import signal
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

from atomr_infer.cli.output.banner import (
    mark_notices,
    print_banner,
    print_line_end,
    print_notice,
)
from atomr_infer.cli.output.load_progress import LoadProgress
from atomr_infer.cli.output.logs import configure_logging
from atomr_infer.cli.serving.cluster_files import (
    SOON_DAYS,
    check_cluster_files,
    node_of,
)
from atomr_infer.cli.serving.failures import Failures, said_with_line
from atomr_infer.cli.serving.hangup import open_hangups, renew_at, signals_here
from atomr_infer.cli.serving.lifecycle import ServeLifecycle
from atomr_infer.cli.serving.other_state import other_state
from atomr_infer.cli.serving.reload import Reloader, tls_of
from atomr_infer.cli.serving.watch import watch_files
from atomr_infer.cluster import Cluster
from atomr_infer.errors import ConfigError, InferenceError, decode, encode
from atomr_infer.serving.deployments.deploying import keeps_all
from atomr_infer.serving.placing.orders import Orders

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from atomr_infer.cli.plan import ServePlan
    from atomr_infer.cli.serving.seat import Seat
    from atomr_infer.config.gateway import GatewayConfig
    from atomr_infer.gateway.gateway import Gateway
    from atomr_infer.model.capabilities import Feature
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.node import ServingNode
    from atomr_infer.serving.placing.alone import LocalOrders

_OBJECTS_BETWEEN_LOOKS = 20_000


def run_serve(
    plan: ServePlan,
    *,
    again: Callable[[], ServePlan],
    log_level: str,
    seat: Seat | None = None,
) -> None:
    """Serve until a signal ends it.

    Args:
        plan: what to serve.
        again: makes the plan anew, when its configuration may have changed.
        log_level: how much is logged.
        seat: of this worker; None: it is the only process.

    Raises:
        ConfigError: the address cannot be bound, or a deployment cannot work.
        InferenceError: no deployment could be started, or, with ``plan.strict``, one
            could not.
    """
    mark = "" if seat is None else f"worker {seat.number}: "
    configure_logging(log_level, mark=mark)
    mark_notices(mark)
    for told in other_state(plan, workers=1) if seat is None else ():
        print_notice(told)
    try:
        trio.run(_serve_in_its_place, plan, again, seat)
    except* KeyboardInterrupt:
        # A Ctrl-C before the signal handler stood: nothing runs yet.
        print_notice("stopped")


async def _serve_in_its_place(
    plan: ServePlan, again: Callable[[], ServePlan], seat: Seat | None
) -> None:
    """Serve; what the gateway cannot be opened with is said with its line."""
    try:
        if seat is None:
            await _serve(plan, again, None)
        else:
            await _serve_as_worker(seat, plan, again)
    except ConfigError as error:
        if plan.origin is not None and error.setting and error.path is None:
            error.path = plan.origin.path
            error.line = plan.origin.positions.line(("gateway", error.setting))
        raise


async def _serve_as_worker(
    seat: Seat, plan: ServePlan, again: Callable[[], ServePlan]
) -> None:
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:
        nursery.start_soon(seat.end_with_parent)
        try:
            await _serve(seat.seated(plan), lambda: seat.seated(again()), seat)
        except (ConfigError, InferenceError) as error:
            failure = error  # raised below, bare
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure


async def _serve(
    plan: ServePlan, again: Callable[[], ServePlan], seat: Seat | None
) -> None:
    here = signals_here()
    with (
        trio.open_signal_receiver(*here.stop) as signals,
        open_hangups(here) as hangups,
    ):
        node = _node(plan, seat)
        async with Cluster.connect("inproc://serve", node=node) as cluster:
            cluster.key_ring.take_teams(plan.teams)
            cluster.budgets.take(plan.budgets)
            gateway = await _ready(cluster, plan, seat, signals)
            node.is_starting = False
            if gateway is not None:
                _spare_the_collector()
                engines = await _engines(cluster, plan)
                features = await _features(cluster, plan)
                if seat is None:
                    print_banner(plan, gateway.url, engines, features=features)
                else:
                    able = {n: [f.value for f in of] for n, of in features.items()}
                    seat.tell({"engines": engines, "features": able})
                async with trio.open_nursery() as nursery:
                    reloader = Reloader(cluster, gateway, plan, again, nursery)
                    cluster.lifecycle = ServeLifecycle(
                        cluster, reloader, gateway, nursery
                    )
                    nursery.start_soon(watch_files, reloader)
                    if hangups is not None:
                        nursery.start_soon(renew_at, hangups, cluster, reloader)
                    name = (await _next(signals)).name
                    config = reloader.plan.gateway
                    await _drain(signals, name, cluster, gateway, config)
                    nursery.cancel_scope.cancel()
            print_notice("stopping")
    print_notice("stopped")


async def _ready(
    cluster: Cluster, plan: ServePlan, seat: Seat | None, signals: AsyncIterator[int]
) -> Gateway | None:
    """Listen, and load everything; None: a signal came first."""
    load = partial(_load, cluster, plan)
    if seat is None:
        gateway = await _listen(cluster, plan, None)
        return gateway if await _unless_signalled(signals, load) else None
    seat.tell({"address": cluster.address})
    # Others accept meanwhile: a worker that is not ready takes nothing from them.
    if not await _unless_signalled(signals, load):
        return None
    return await _listen(cluster, plan, seat)


async def _listen(cluster: Cluster, plan: ServePlan, seat: Seat | None) -> Gateway:
    # Several workers share one socket, and the operators' is not among them.
    is_first = seat is None or seat.number == 1
    gateway = await cluster.serve(
        plan.gateway.bind,
        max_body_bytes=plan.gateway.max_body_bytes,
        write_timeout_s=plan.gateway.write_timeout_s,
        keepalive_s=plan.gateway.keepalive_s,
        shared_references=plan.gateway.shared_references,
        virtual_keys=plan.gateway.virtual_keys,
        cors_origins=plan.gateway.cors_origins,
        keys=plan.keys,
        admin_key=plan.admin_key,
        admin_bind=plan.gateway.admin_bind if is_first else None,
        response_store=_path(plan.gateway.response_store),
        tls=tls_of(plan.gateway),
        sockets=() if seat is None else seat.take_sockets(),
    )
    if gateway.admin_url is not None:
        print_notice(f"operators ask at {gateway.admin_url}")
    return gateway


def _node(plan: ServePlan, seat: Seat | None) -> ServingNode:
    """Return the node to stand on; what is wrong with it is said with its line."""
    alive = None
    if seat is not None and plan.node.state_dir is None:
        alive = seat.alive_file
    if seat is None:
        for note in check_cluster_files(plan, os.environ, within_days=SOON_DAYS):
            print_notice(note)
    node = node_of(plan, os.environ, alive=alive)
    node.roster.quiet = seat is not None  # their parent tells it
    node.shares_port = seat is not None
    node.is_starting = True
    return node


def _spare_the_collector() -> None:
    """Look for cycles less often, and never at what is loaded.

    Each request makes objects by the hundred and hardly a cycle, and Python's
    collector looks after seven hundred: that was a fifth of a request's time.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_OBJECTS_BETWEEN_LOOKS, 20, 50)


def _path(text: str | None) -> Path | None:
    return None if text is None else Path(text)


async def _next(signals: AsyncIterator[int]) -> signal.Signals:
    number = signal.Signals(await anext(signals))
    if number is signal.SIGINT and sys.stderr is not None and sys.stderr.isatty():
        print_line_end()  # the terminal has shown ^C
    return number


async def _unless_signalled(
    signals: AsyncIterator[int], work: Callable[[], Awaitable[None]]
) -> bool:
    """Do ``work``; give it up at a signal.

    Returns:
        Whether it was done and no signal came: one that comes as the work ends
        has been taken, and would be lost if the answer were yes.
    """
    done = signalled = False
    failure: Exception | None = None
    async with trio.open_nursery() as nursery:

        async def run() -> None:
            nonlocal done, failure
            try:
                await work()
                done = True
            except Exception as error:  # noqa: BLE001 - raised below, bare
                failure = error
            nursery.cancel_scope.cancel()

        nursery.start_soon(run)
        await _next(signals)
        signalled = True
        nursery.cancel_scope.cancel()
    if failure is not None:
        raise failure
    return done and not signalled


async def _load(cluster: Cluster, plan: ServePlan) -> None:
    """Load everything; what cannot be loaded is told, and tried again."""
    if isinstance(cluster.orders, Orders):
        await _load_share(cluster, cluster.orders, plan)
    else:
        await _load_all(cluster, cluster.orders, plan)


async def _load_share(cluster: Cluster, orders: Orders, plan: ServePlan) -> None:
    """Have all nodes serve what the file says, and load this node's share of it."""
    await orders.meet()
    swaps = cluster.hot_swaps.declared
    for line in orders.declare(plan.deployments, swaps=swaps, at_start=True):
        print_notice(line)
    failures = Failures(plan)
    with LoadProgress() as progress:
        names = [deployment.name for deployment in plan.deployments]
        await orders.await_here(names, progress.show, failures.note)
        for name in names:
            if name not in failures:
                progress.done(name)


async def _load_all(cluster: Cluster, orders: LocalOrders, plan: ServePlan) -> None:
    with said_with_line(plan):
        async with orders.seated(plan.deployments):
            await _load_each(cluster, orders, plan)


async def _load_each(cluster: Cluster, orders: LocalOrders, plan: ServePlan) -> None:
    failure: ConfigError | InferenceError | None = None
    failures = Failures(plan)
    # All are deployed at once, so a fallback may come after who names it.
    names = frozenset(deployment.name for deployment in plan.deployments)
    with LoadProgress() as progress:
        async with trio.open_nursery() as nursery:

            async def load(deployment: Deployment) -> None:
                nonlocal failure
                show = partial(progress.show, deployment.name)
                try:
                    with cluster.at_home():
                        await orders.deploy(
                            deployment, progress=show, expected=names, keeps=keeps_all
                        )
                except ConfigError as error:
                    failure = error
                    nursery.cancel_scope.cancel()
                except InferenceError as error:
                    try:
                        failures.note(deployment.name, _named(deployment, error))
                    except InferenceError as last:
                        failure = last
                        nursery.cancel_scope.cancel()
                else:
                    progress.done(deployment.name)

            for deployment in plan.deployments:
                nursery.start_soon(load, deployment)
    if failure is not None:
        raise failure


def _named(deployment: Deployment, error: InferenceError) -> InferenceError:
    """Return the error with the name of the deployment that it ended."""
    record = encode(error)
    message = f"deployment {deployment.name!r} cannot be served: {record.message}"
    return decode(attrs.evolve(record, message=message))


async def _engines(cluster: Cluster, plan: ServePlan) -> dict[str, list[int]]:
    """The process ids of the local engines, by deployment."""
    found: dict[str, list[int]] = {}
    for deployment in plan.deployments:
        replicas = await cluster.replicas(deployment.name)
        found[deployment.name] = [r.engine_pid for r in replicas if r.engine_pid]
    return found


async def _features(cluster: Cluster, plan: ServePlan) -> dict[str, frozenset[Feature]]:
    """What those deployments can do whose engines run here."""
    found: dict[str, frozenset[Feature]] = {}
    for deployment in plan.deployments:
        for replica in await cluster.replicas(deployment.name):
            if (engine := replica.permits.engine) is not None:
                found[deployment.name] = engine.runner.capabilities.features
    return found


async def _drain(
    signals: AsyncIterator[int],
    name: str,
    cluster: Cluster,
    gateway: Gateway,
    config: GatewayConfig,
) -> None:
    timeout_s, grace_s = config.drain_timeout_s, config.drain_grace_s
    running = gateway.running
    if grace_s:
        print_notice(
            f"{name}: not ready any more; requests are still taken for "
            f"{grace_s:g} s (again to stop now)"
        )
    elif running:
        print_notice(
            f"{name}: no new requests; {running} running may finish within "
            f"{timeout_s:g} s (again to stop now)"
        )

    async def drain() -> None:
        with cluster.at_home():
            cluster.orders.begin_leaving()  # first: what moves is asked until then
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_hand_over, cluster, timeout_s + grace_s)
            await gateway.drain(timeout_s, grace_s=grace_s)

    await _unless_signalled(signals, drain)


async def _hand_over(cluster: Cluster, within_s: float) -> None:
    """Let other nodes take over; what they have not when time is up ends with us."""
    with trio.move_on_after(within_s), cluster.at_home():
        await cluster.orders.leave()
