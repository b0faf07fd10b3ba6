"""atomr: processes, GenServers, supervisors and applications on trio.

Importing this module loads none of its parts: ``import atomr.core`` must not
load trio.  Import what you need from its package (``atomr.otp``,
``atomr.process``, ...).
"""
