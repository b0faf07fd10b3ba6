"""OTP behaviours: GenServer, Supervisor, DynamicSupervisor, Application.

With the values they work with, so that a server and its tree need one import.
"""

from atomr.core.child_spec import BRUTAL_KILL, INFINITY, ChildKind, ChildSpec, Restart
from atomr.core.exits import (
    KILL,
    KILLED,
    NOPROC,
    NORMAL,
    SHUTDOWN,
    ExitReason,
    Shutdown,
)
from atomr.core.mailbox_limit import MailboxLimit, Overflow
from atomr.core.messages import Down, Exit, IdleTimeout
from atomr.core.state_events import (
    Enter,
    EventTimeout,
    Hibernate,
    Info,
    Insert,
    Internal,
    Postpone,
    StateTimeout,
    Timeout,
)
from atomr.core.supervision import AutoShutdown, GaveUp, Strategy
from atomr.otp import sys as sys  # not in __all__: it has a standard module's name
from atomr.otp.agent import Agent, AgentRef
from atomr.otp.application import Application, run_applications
from atomr.otp.application_env import (
    ApplicationInfo,
    application_config,
    current_application,
    fetch_env,
    get_env,
    stop_applications,
    which_applications,
)
from atomr.otp.children import (
    ChildCounts,
    ChildInfo,
    ChildState,
    child,
    count_children,
    delete_child,
    restart_child,
    start_child,
    terminate_child,
    which_children,
)
from atomr.otp.dynamic_supervisor import DynamicSupervisor
from atomr.otp.gen_server import GenServer
from atomr.otp.multi import MultiReply, abcast, multi_call
from atomr.otp.partition_supervisor import PartitionRef, PartitionSupervisor
from atomr.otp.pubsub import PubSub
from atomr.otp.registry import Keys, Registry, RegistryRef
from atomr.otp.results import Fail, Ignore, NoReply, Ok, Reply, Stop
from atomr.otp.state_machine import StateMachine
from atomr.otp.state_results import (
    Call,
    Keep,
    Next,
    Repeat,
    ReplyTo,
    StateAction,
    StateEvent,
    StateInitResult,
    StateResult,
)
from atomr.otp.supervisor import Supervisor
from atomr.otp.task import Task, TaskEnded
from atomr.otp.task_body import Done, Exited, callers
from atomr.otp.task_results import ItemExited, OnItemTimeout, TaskResults
from atomr.otp.task_stream import TaskStream, async_stream, async_stream_nolink
from atomr.otp.task_supervisor import (
    TaskSupervisor,
    async_,
    async_nolink,
    start_task,
    task_children,
)
from atomr.otp.task_waiting import OnTimeout, await_many, yield_many
from atomr.otp.tree import TreeNode, supervision_tree
from atomr.process.calls import Cast, From, Request, call, cast, cast_wait, reply

__all__ = [
    "BRUTAL_KILL",
    "INFINITY",
    "KILL",
    "KILLED",
    "NOPROC",
    "NORMAL",
    "SHUTDOWN",
    "Agent",
    "AgentRef",
    "Application",
    "ApplicationInfo",
    "AutoShutdown",
    "Call",
    "Cast",
    "ChildCounts",
    "ChildInfo",
    "ChildKind",
    "ChildSpec",
    "ChildState",
    "Done",
    "Down",
    "DynamicSupervisor",
    "Enter",
    "EventTimeout",
    "Exit",
    "ExitReason",
    "Exited",
    "Fail",
    "From",
    "GaveUp",
    "GenServer",
    "Hibernate",
    "IdleTimeout",
    "Ignore",
    "Info",
    "Insert",
    "Internal",
    "ItemExited",
    "Keep",
    "Keys",
    "MailboxLimit",
    "MultiReply",
    "Next",
    "NoReply",
    "Ok",
    "OnItemTimeout",
    "OnTimeout",
    "Overflow",
    "PartitionRef",
    "PartitionSupervisor",
    "Postpone",
    "PubSub",
    "Registry",
    "RegistryRef",
    "Repeat",
    "Reply",
    "ReplyTo",
    "Request",
    "Restart",
    "Shutdown",
    "StateAction",
    "StateEvent",
    "StateInitResult",
    "StateMachine",
    "StateResult",
    "StateTimeout",
    "Stop",
    "Strategy",
    "Supervisor",
    "Task",
    "TaskEnded",
    "TaskResults",
    "TaskStream",
    "TaskSupervisor",
    "Timeout",
    "TreeNode",
    "abcast",
    "application_config",
    "async_",
    "async_nolink",
    "async_stream",
    "async_stream_nolink",
    "await_many",
    "call",
    "callers",
    "cast",
    "cast_wait",
    "child",
    "count_children",
    "current_application",
    "delete_child",
    "fetch_env",
    "get_env",
    "multi_call",
    "reply",
    "restart_child",
    "run_applications",
    "start_child",
    "start_task",
    "stop_applications",
    "supervision_tree",
    "task_children",
    "terminate_child",
    "which_applications",
    "which_children",
    "yield_many",
]
