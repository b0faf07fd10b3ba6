"""The error tree of atomr.

One root, split by whose fault it is: the caller's, the other process's, ours.
Every error carries the values it speaks of as attributes.  Messages say the
operation, the value and what was expected.
"""

from atomr.errors.base import (
    AtomrError,
    AtomrInternalError,
    short,
)
from atomr.errors.behaviours import (
    AlreadyStartedError,
    ApplicationConfigError,
    BadActionError,
    BadReturnError,
    CallbackInterruptedError,
    ChildError,
    ChildNotFoundError,
    DependencyError,
    InitStoppedError,
    InitTimeoutError,
    MaxChildrenError,
    NoApplicationError,
    StartError,
    StartIgnoredError,
)
from atomr.errors.calls import (
    CallCycleError,
    CallError,
    CallTimeoutError,
    MailboxFullError,
    NoProcessError,
    NoRegistryError,
    ServerDownError,
    SystemMessageError,
)
from atomr.errors.clusters import (
    ClusterDownError,
    ClusterError,
    ClusterTimeoutError,
    DiscoveryError,
    SupersededError,
)
from atomr.errors.flows import (
    BranchOpenedAgainError,
    BufferFullError,
    FlowError,
    FlowRestartsError,
    NoBranchError,
)
from atomr.errors.links import (
    LinkBusyError,
    LinkCallError,
    LinkDownError,
    LinkError,
    LinkMessageError,
    LinkRefusedError,
    LinkStreamError,
    LinkTimeoutError,
)
from atomr.errors.processes import (
    NameTakenError,
    NoNodeError,
    NotAProcessError,
    NotRegisteredError,
    ProcessKilledError,
    ReceiveTimeoutError,
    RootExitError,
    TaskError,
    TaskExitError,
    TaskTimeoutError,
    WrongThreadError,
)
from atomr.errors.remote import (
    NoConnectionError,
    RemoteCallError,
    RemoteError,
    SpawnRefusedError,
    UnregisteredMessageError,
)
from atomr.errors.threads import (
    AsyncioCancelledError,
    StopRequestedError,
    ThreadAbandonedError,
)

__all__ = [
    "AlreadyStartedError",
    "ApplicationConfigError",
    "AsyncioCancelledError",
    "AtomrError",
    "AtomrInternalError",
    "BadActionError",
    "BadReturnError",
    "BranchOpenedAgainError",
    "BufferFullError",
    "CallCycleError",
    "CallError",
    "CallTimeoutError",
    "CallbackInterruptedError",
    "ChildError",
    "ChildNotFoundError",
    "ClusterDownError",
    "ClusterError",
    "ClusterTimeoutError",
    "DependencyError",
    "DiscoveryError",
    "FlowError",
    "FlowRestartsError",
    "InitStoppedError",
    "InitTimeoutError",
    "LinkBusyError",
    "LinkCallError",
    "LinkDownError",
    "LinkError",
    "LinkMessageError",
    "LinkRefusedError",
    "LinkStreamError",
    "LinkTimeoutError",
    "MailboxFullError",
    "MaxChildrenError",
    "NameTakenError",
    "NoApplicationError",
    "NoBranchError",
    "NoConnectionError",
    "NoNodeError",
    "NoProcessError",
    "NoRegistryError",
    "NotAProcessError",
    "NotRegisteredError",
    "ProcessKilledError",
    "ReceiveTimeoutError",
    "RemoteCallError",
    "RemoteError",
    "RootExitError",
    "ServerDownError",
    "SpawnRefusedError",
    "StartError",
    "StartIgnoredError",
    "StopRequestedError",
    "SupersededError",
    "SystemMessageError",
    "TaskError",
    "TaskExitError",
    "TaskTimeoutError",
    "ThreadAbandonedError",
    "UnregisteredMessageError",
    "WrongThreadError",
    "short",
]

# Where they are in this package is nobody's business: a traceback says this name.
for _name in __all__:
    globals()[_name].__module__ = __name__
