"""How a process ended, in words.

Pure.
"""

from __future__ import annotations

import signal


def describe_exit(returncode: int) -> str:
    """Say how a process ended, from ``Popen.returncode``.

    >>> describe_exit(-9)
    'killed by SIGKILL (9)'
    >>> describe_exit(3)
    'exited with status 3'
    """
    if returncode >= 0:
        return f"exited with status {returncode}"
    return f"killed by {_signal_name(-returncode)} ({-returncode})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal has no name of its own
        return "signal"
