"""`Deployment`: what an operator wants served, as one immutable value.

The same value comes from a TOML table, from ``cluster.deploy(...)`` in a
program, and from a provider's key in the environment.  It is validated when it
is made, so that no invalid deployment exists; what only a runtime can judge
(its ``options``) is checked by that runtime before anything starts.

Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum

import attrs

from atomr_infer.model.budget import Budget, are_budgets, budgets
from atomr_infer.model.child_environment import (
    are_variables,
    as_variables,
    refuse_gpus_of_both,
    shown,
)
from atomr_infer.model.failover import (
    BreakerPolicy,
    Fallback,
    HedgePolicy,
    OnCapacity,
    OnCut,
    Swap,
    as_fallbacks,
)
from atomr_infer.model.placement import Placement
from atomr_infer.model.prices import Price
from atomr_infer.model.rate_limits import RateLimits
from atomr_infer.model.ray import RayHost
from atomr_infer.model.routing import Routing
from atomr_infer.model.secret import PooledSecret, SecretSource, alone, pooled
from atomr_infer.model.swap_plan import SwapPlan
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    at_most,
    identifier,
    non_empty,
    not_negative,
    positive,
)

OptionValue = (
    str | int | float | bool | list["OptionValue"] | Mapping[str, "OptionValue"]
)
"""A runtime's own option: what TOML can hold."""


class Jitter(Enum):
    """How a retry's wait is spread, so that clients do not retry in step."""

    FULL = "full"
    EQUAL = "equal"
    NONE = "none"


@attrs.frozen(kw_only=True)
class Serving:
    """How many copies run, and how much work each one takes at once.

    Attributes:
        replicas: running copies, at least 1.
        max_concurrency: requests that one replica runs at once; None: what
            its runtime says it can do.
        max_queue: requests that may wait for one replica; one more is refused
            with :class:`~atomr_infer.errors.OverloadedError`.  0: never wait.
        queue_timeout_s: longest wait in that queue, in seconds.
        priority_aging_s: a request in the queue gains a step of priority each
            time that it has waited so long, so that nobody waits for ever.
        routing: who of several replicas takes a request.  ``least_tokens``,
            ``least_requests``: the one with the least of them under way.
            ``two_choices``: the better of two that are drawn.  ``fastest``: the one
            whose first words came soonest of late, by its work.  ``weighted``: the
            one with the fewest tokens for each of its places.  ``session``: the one
            that has the conversation's other requests.  ``prefix``: the one that
            has read the longest beginning of the prompt, unless it is busy.
        local_margin: by what share the work of this node's replicas may exceed that
            of another node's before a request goes there.
        weight: its share of the requests for a name that several deployments serve,
            beside their weights, as 0.05 beside 0.95 for one that is tried; 0: none
            while another one can answer.  Where all are equal, the one with the least
            work is asked.
        on_capacity_exhausted: what becomes of a request when every permit is
            taken.  ``queue``: it waits; when the queue is full or the wait too
            long, a fallback may take it.  ``reject``: the client is told at
            once.  ``fallback``: a fallback is asked at once, and it waits only
            where there is none (left).
        swap: how other engines come when the deployment is changed.  ``beside``:
            they are opened beside the old ones, and take the traffic when all of
            them serve.  ``after``: one replica after the other lets its requests
            end, closes its engine and opens the new one, while requests wait; for
            engines of which two do not fit.
        idle_stop_s: when nobody has asked a replica for so long, its engine is
            stopped and its memory is free; the next request starts it again, and
            waits for it, up to ``timeouts.load_s``.  None: it runs on.
        probe_s: how often each engine is asked for one token, to see that it
            answers: one that says nothing within ``timeouts.first_token_s`` is
            started anew, as one that hangs is.  None: it is not.
    """

    replicas: int = attrs.field(default=1, validator=[at_least(1), at_most(256)])
    max_concurrency: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least(1))
    )
    max_queue: int = attrs.field(default=256, validator=at_least(0))
    queue_timeout_s: float = attrs.field(default=60.0, validator=positive)
    priority_aging_s: float = attrs.field(default=10.0, validator=positive)
    routing: Routing = attrs.field(
        default=Routing.LEAST_TOKENS, validator=attrs.validators.instance_of(Routing)
    )
    local_margin: float = attrs.field(default=0.5, validator=not_negative)
    weight: float = attrs.field(default=1.0, validator=not_negative)
    on_capacity_exhausted: OnCapacity = attrs.field(
        default=OnCapacity.QUEUE, validator=attrs.validators.instance_of(OnCapacity)
    )
    swap: Swap = attrs.field(
        default=Swap.BESIDE, validator=attrs.validators.instance_of(Swap)
    )
    idle_stop_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    probe_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )


@attrs.frozen(kw_only=True)
class Timeouts:
    """Bounds on silence, in seconds.

    Attributes:
        load_s: a local engine's start, weights included.
        silent_s: a local engine's process that gives no sign of life is killed after
            so long, and another one is started.  One that holds its interpreter for
            longer in normal work needs more.
        stuck_s: a local engine that is asked and makes nothing for so long is killed
            with its process, and another one is started: no step, where it tells its
            steps (``ort``, ``llamacpp``, ``vllm``, ``tensorrt``: reading a piece of a
            prompt is one, and a run of a model of vectors or tensors), else no piece
            of any answer, so that it needs more than the longest prompt takes.  None:
            90 seconds where it writes and tells its steps; else the longer one of
            ``first_token_s`` and ``idle_s`` and 90 seconds.
        connect_s: a connection to a remote provider, TLS included.
        first_token_s: from the start of one attempt to its first chunk.
        idle_s: between two chunks of a stream.
        total_s: a whole request: queue, retries, fallbacks and the answer.
    """

    load_s: float = attrs.field(default=900.0, validator=positive)
    silent_s: float = attrs.field(default=15.0, validator=positive)
    stuck_s: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    connect_s: float = attrs.field(default=10.0, validator=positive)
    first_token_s: float = attrs.field(default=120.0, validator=positive)
    idle_s: float = attrs.field(default=60.0, validator=positive)
    total_s: float = attrs.field(default=900.0, validator=positive)


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """When a failed attempt is made again, before the client has seen anything.

    Attributes:
        max_attempts: tries in all, the first one included; 1: no retry.
        backoff_s: wait before the second try; it doubles with each further one.
        max_backoff_s: longest wait between two tries.  An upstream that asks
            for more in ``Retry-After`` is not asked again.
        jitter: how the wait is spread: ``full``: anywhere up to it; ``equal``:
            over its second half; ``none``: not at all.
        idempotent: False forbids every retry of a request that the engine or
            the upstream may have begun.
    """

    max_attempts: int = attrs.field(default=3, validator=[at_least(1), at_most(20)])
    backoff_s: float = attrs.field(default=0.25, validator=positive)
    max_backoff_s: float = attrs.field(default=20.0, validator=positive)
    jitter: Jitter = attrs.field(
        default=Jitter.FULL, validator=attrs.validators.instance_of(Jitter)
    )
    idempotent: bool = attrs.field(
        default=True, validator=attrs.validators.instance_of(bool)
    )


def _freeze_names(names: tuple[str, ...] | list[str]) -> tuple[str, ...]:
    return tuple(names)


AUTO = "auto"
"""The runtime of a deployment that leaves it to its model."""


@attrs.frozen(kw_only=True)
class Deployment:
    """One model behind one runtime, under one or more public names.

    Attributes:
        name: unique in its cluster; letters, digits and ``. _ - / :``.
        runtime: the plugin that runs it, by entry-point name: ``openai``, ...
            ``auto``: the one that the model's name or file tells, where it is deployed.
        model: what the runtime is asked for: a path, a package, a provider's
            model name.  None: the name that the client used.
        interpreter: the Python that runs a local engine's process, when that is of
            another environment than this one: engines need versions of packages
            that exclude each other.  It must have the same atomr-infer, and the
            engine.  None: this one.
        environment: environment variables of a local engine's process, such as
            ``{ OMP_NUM_THREADS = "4" }``, beside those of this one.  They are told to
            whoever may see the deployment: a key or token belongs in ``credential``.
        memory_limit_gib: the most memory that a local engine's processes may have
            together, in GiB; with more they are killed, and it is started anew.  What
            they map from files does not count, nor what a GPU has.  None: as much as
            there is.
        serves: public model names; a name with ``*`` is a pattern such as
            ``gpt-*``.  Empty: ``(name,)``.  A pattern that ends in ``/*``
            (``openai/*``) takes its prefix off before the upstream is asked.
            Deployments that serve the same name are a group: the least loaded
            one answers, and the others when it fails.
        credential: where the upstream's key is found; None: none is needed.
        price: what its models cost; None: what is known of the provider's.
        default_max_tokens: the longest answer to a request that does not say how
            long it may be: the upstream is asked for so much, and limits and budgets
            set so much aside.  None: as long as the model makes it.
        credentials: several keys that are used in turn; one that is refused or
            limited is left alone for a while.
        options: what only this runtime understands; checked by it.
        serving: replicas, concurrency and queue.
        timeouts: bounds on silence.
        retry: when a failed attempt is made again.
        fallbacks: other deployments to ask when this one fails, in order; each
            is a name, or a table with ``to`` and ``on``.
        on_cut: what becomes of an answer whose stream breaks after its first
            words.  ``error``: the client is told.  ``restart_match``: the
            request is made again, and what the client has is left out while the
            new answer agrees with it.  ``continue``: a model that can go on from
            an answer's beginning does so.  ``buffer``: nothing is sent before
            the answer is whole.
        breaker: when the upstream's endpoint counts as broken.
        hedge: when a second attempt is made because the first is slow.
        budget: what may be spent on it, by all nodes together.
        rate_limits: how fast it may be asked, by all nodes together; None: as fast as
            it goes.  They are its key's, for its model: deployments that share both
            share them.
        placement: which nodes of a cluster may run it.
        ray: the Ray cluster whose nodes run its engines; None: this machine does.
        hot_swap: how carefully another one takes over from it, where its file is
            changed or ``atomr-infer swap`` says so.  None: a changed file exchanges
            it in one step.

    >>> Deployment(name="tiny", runtime="mock").serves
    ('tiny',)
    >>> Deployment(name="", runtime="mock")
    Traceback (most recent call last):
    ...
    atomr_infer.model.validation.InvalidValueError: name: '' is empty; give it a value
    """

    name: str = attrs.field(validator=identifier)
    runtime: str = attrs.field(default=AUTO, validator=identifier)
    model: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )
    interpreter: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )
    environment: Mapping[str, str] = attrs.field(
        factory=dict,
        converter=as_variables,
        validator=are_variables,
        hash=False,
        repr=shown,
    )
    memory_limit_gib: float | None = attrs.field(
        default=None, validator=attrs.validators.optional(positive)
    )
    serves: tuple[str, ...] = attrs.field(
        converter=_freeze_names,
        validator=attrs.validators.deep_iterable(non_empty),
    )
    credential: SecretSource | None = None
    price: Price | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(Price)),
    )
    default_max_tokens: int | None = attrs.field(
        default=None, validator=attrs.validators.optional(at_least(1))
    )
    credentials: tuple[PooledSecret, ...] = attrs.field(
        default=(), converter=pooled, validator=alone
    )
    options: Mapping[str, OptionValue] = attrs.field(factory=dict, hash=False)
    serving: Serving = Serving()
    timeouts: Timeouts = Timeouts()
    retry: RetryPolicy = RetryPolicy()
    fallbacks: tuple[Fallback, ...] = attrs.field(
        default=(),
        converter=as_fallbacks,
        validator=attrs.validators.deep_iterable(
            attrs.validators.instance_of(Fallback)
        ),
    )
    on_cut: OnCut = attrs.field(
        default=OnCut.ERROR, validator=attrs.validators.instance_of(OnCut)
    )
    breaker: BreakerPolicy = attrs.field(factory=BreakerPolicy)
    hedge: HedgePolicy = attrs.field(factory=HedgePolicy)
    budget: tuple[Budget, ...] = attrs.field(
        default=(), converter=budgets, validator=are_budgets
    )
    rate_limits: RateLimits | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(RateLimits)),
    )
    placement: Placement = attrs.field(factory=Placement)
    hot_swap: SwapPlan | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(SwapPlan)),
    )
    ray: RayHost | None = attrs.field(
        default=None,
        validator=attrs.validators.optional(attrs.validators.instance_of(RayHost)),
    )

    @serves.default
    def _serves_its_own_name(self) -> tuple[str, ...]:
        return (self.name,)

    def __attrs_post_init__(self) -> None:
        if not self.serves:
            object.__setattr__(self, "serves", (self.name,))
        _refuse_odd_fallbacks(self)
        refuse_gpus_of_both(self.environment, self.placement, self.ray)


def changes_while_serving(now: Deployment, wanted: Deployment) -> bool:
    """Whether one becomes the other without its engine, keys or circuit.

    Who is routed to it, what is done when it fails and what it costs is looked up
    for each request.

    >>> chat = Deployment(name="chat", runtime="mock")
    >>> changes_while_serving(chat, attrs.evolve(chat, serves=("chat", "talk")))
    True
    >>> changes_while_serving(chat, attrs.evolve(chat, model="other"))
    False
    """
    same = attrs.evolve(
        wanted,
        serves=now.serves,
        price=now.price,
        default_max_tokens=now.default_max_tokens,
        # Its runner knows whether requests may be sent again.
        retry=attrs.evolve(now.retry, idempotent=wanted.retry.idempotent),
        fallbacks=now.fallbacks,
        on_cut=now.on_cut,
        hedge=now.hedge,
        budget=now.budget,
    )
    return same == now


def _refuse_odd_fallbacks(deployment: Deployment) -> None:
    names = [fallback.to for fallback in deployment.fallbacks]
    for name in names:
        if name == deployment.name:
            problem = "is the deployment itself; name another one"
            raise InvalidValueError("fallbacks", name, problem)
        if names.count(name) > 1:
            raise InvalidValueError("fallbacks", name, "stands there twice")
