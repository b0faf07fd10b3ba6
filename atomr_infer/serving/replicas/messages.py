"""What the processes of the serving tree say to each other."""

from __future__ import annotations

import attrs

from atomr.otp import Request
from atomr.refs import Pid, Ref
from atomr_infer.errors import InferenceError
from atomr_infer.model.batch import ExecuteBatch
from atomr_infer.model.cost import CostEstimate
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.prices import Price
from atomr_infer.policy.tenants.admission import UNCLAIMED, Claim
from atomr_infer.runtimes.contract import ModelRunner, Progress
from atomr_infer.serving.replicas.engine_life import EngineLife
from atomr_infer.serving.replicas.permits import Ended, Permit
from atomr_infer.serving.replicas.replica import Lease, ReplicaState

# --- to an engine core --------------------------------------------------------


@attrs.frozen
class Admit(Request[Lease | InferenceError]):
    """Give ``requester`` a permit, now or when one is free.

    Attributes:
        requester: the request's process; its end gives the permit back.
        priority: higher goes first in the queue.
        may_wait: False refuses at once instead of queueing.
        claim: whose turn it takes in the queue.
        is_probe: True when it is for nobody: it only looks whether the engine
            answers.
    """

    requester: Pid
    priority: int = 0
    may_wait: bool = True
    claim: Claim = UNCLAIMED
    is_probe: bool = False


@attrs.frozen
class Release:
    """The generation under this lease has ended."""

    ref: Ref
    ended: Ended = Ended.OTHERWISE


@attrs.frozen(eq=False)
class Freed:
    """A permit that was taken without a message is given back: somebody waits."""

    permit: Permit
    ended: Ended


@attrs.frozen
class QueueTimeout:
    """A request has waited as long as its deployment allows.

    Attributes:
        ref: the request's.
        waited_s: how long that is, in seconds.
    """

    ref: Ref
    waited_s: float


@attrs.frozen(eq=False)
class LookIdle:
    """Look whether an engine has been used of late.

    Attributes:
        life: the engine's.
    """

    life: EngineLife


@attrs.frozen
class EstimateCost(Request[CostEstimate | None]):
    """Say what a request may cost on this engine; None: its price is not known.

    Attributes:
        batch: the request, its model's name as the runtime knows it.
        price: the model's.
    """

    batch: ExecuteBatch
    price: Price | None


@attrs.frozen
class Announce:
    """Tell the coordinator that you exist, and are to stay."""


@attrs.frozen
class Adopt(Request[None]):
    """Be what your deployment is now.

    Attributes:
        version: the context that is to be run on.
        keeps_limit: whether what its upstream has taught of how many may run at
            once still holds.
    """

    version: int
    keeps_limit: bool


@attrs.frozen
class Pause(Request[None]):
    """Let go of the engine: requests wait for that of another context.

    Attributes:
        version: the other one.
    """

    version: int


@attrs.frozen
class Retire:
    """Tell the deployment manager when nobody runs or waits any more."""


@attrs.frozen
class Left:
    """A permit has come back while the core waits for the last one."""


@attrs.frozen
class ContextProgress:
    """The engine's start has come one step further."""

    progress: Progress
    version: int


@attrs.frozen(eq=False)
class ContextUp:
    """The engine is ready.

    Attributes:
        context: the process that owns it.
        runner: what runs generations until that process ends.
        life: what generations hold on to.
        version: which context of the replica it is.
        model: what its deployment asks for; None: what the client does.
    """

    context: Pid
    runner: ModelRunner
    life: EngineLife
    version: int
    model: str | None

    def most(self, deployment: Deployment) -> int:
        """Return how many generations may run on it at once."""
        most = deployment.serving.max_concurrency
        return self.runner.capabilities.max_concurrency if most is None else most


@attrs.frozen
class ContextFailed:
    """The engine cannot be started, and trying again would not help."""

    error: InferenceError
    version: int = 0


@attrs.frozen
class ContextFails:
    """The engine can serve no more, and is being closed, which may take seconds."""

    error: InferenceError
    version: int


@attrs.frozen
class StaysAsleep:
    """An engine that was stopped for want of requests could not be started."""

    error: InferenceError
    version: int


# --- to a coordinator ---------------------------------------------------------


@attrs.frozen(eq=False)
class ReplicaUp:
    """An engine core has started and can be asked for permits."""

    replica: ReplicaState


@attrs.frozen
class ReplicaChanged:
    """A replica's phase is another one now."""

    core: Pid


@attrs.frozen
class Reshaped:
    """The deployment has another number of replicas now."""


@attrs.frozen
class AwaitServing(Request[InferenceError | None]):
    """Answer when every replica serves, or with the error when none can."""


# --- to the deployment manager ------------------------------------------------


@attrs.frozen
class Deploy(Request[Exception | None]):
    """Start serving a deployment; answered when its tree stands, not when ready.

    Attributes:
        deployment: what to serve.
        expected: names that it may fall back to although they are not there yet.
    """

    deployment: Deployment
    expected: frozenset[str] = frozenset()


@attrs.frozen
class Change(Request[Exception | None]):
    """Take another deployment for the one of its name, which serves on.

    Attributes:
        deployment: the other one; see ``changes_while_serving``.
    """

    deployment: Deployment


@attrs.frozen
class ReplicaIdle:
    """Nobody runs or waits on a replica that was told to retire.

    Attributes:
        core: its engine core.
        deployment: the deployment's name.
        number: the replica's.
    """

    core: Pid
    deployment: str
    number: int


@attrs.frozen
class Drain(Request[bool]):
    """Route to the deployment of that name no more, and end it when it is idle.

    Answered when it has ended; False: there is none of that name.
    """

    name: str


@attrs.frozen
class Undeploy(Request[bool]):
    """Stop serving the deployment of that name; False when there is none.

    Attributes:
        name: the deployment's.
        only: when given, a deployment of that name that is another object stays.
    """

    name: str
    only: Deployment | None = None
