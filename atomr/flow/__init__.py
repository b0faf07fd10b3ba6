"""Streams of events that are driven by demand, as Elixir's GenStage and Flow are.

::

    from atomr import flow

    squares = flow.from_iterable(range(10)).map(lambda n: n * n).batch(4)
    batches = await squares.collect()

``flow`` describes and runs them, ``stage`` says what a running stage is, ``steps`` is
what needs no waiting, ``sources``, ``inline``, ``buffer``, ``concurrent`` and ``fan``
are the stages, ``origins`` the flows that begin.
"""

from atomr.flow.buffer import WhenFull
from atomr.flow.flow import Flow
from atomr.flow.kill_switch import KillSwitch
from atomr.flow.origins import (
    from_async_iterable,
    from_channel,
    from_iterable,
    merge,
    tick,
)
from atomr.flow.retry import Retry
from atomr.flow.steps import OnError
from atomr.flow.stream import Stream

__all__ = [
    "Flow",
    "KillSwitch",
    "OnError",
    "Retry",
    "Stream",
    "WhenFull",
    "from_async_iterable",
    "from_channel",
    "from_iterable",
    "merge",
    "tick",
]
