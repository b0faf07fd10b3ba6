"""The error tree of atomr.

One root, split by whose fault it is: the caller's, the other process's, ours.
Every error carries the values it speaks of as attributes.
"""


class AtomrError(Exception):
    """Root of all errors that atomr and what is built on it raise."""


class AtomrInternalError(AtomrError):
    """A bug in atomr itself; please report it with the traceback."""
