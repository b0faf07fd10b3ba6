"""Why a connection could not be opened, for people.

Pure.
"""

from __future__ import annotations

import os
import socket


def why_unreached(error: OSError) -> str:
    """Return why nothing was reached: each reason of a name's addresses, once.

    trio tells them within a group, each behind its address.

    >>> import errno
    >>> failed = OSError("all attempts failed")
    >>> numbers = (errno.ENETUNREACH, errno.ECONNREFUSED, errno.ECONNREFUSED)
    >>> failed.__cause__ = ExceptionGroup("", [OSError(n, "of ...") for n in numbers])
    >>> why_unreached(failed)
    'Network is unreachable, Connection refused'
    """
    group = error.__cause__
    if not isinstance(group, BaseExceptionGroup):
        return _reason(error)
    causes = [e for e in group.exceptions if isinstance(e, OSError)]
    return ", ".join(dict.fromkeys(map(_reason, causes))) or _reason(error)


def _reason(error: OSError) -> str:
    # The number of a name that nobody knows is of another table.
    if error.errno and not isinstance(error, socket.gaierror):
        return os.strerror(error.errno)
    return error.strerror or str(error)
