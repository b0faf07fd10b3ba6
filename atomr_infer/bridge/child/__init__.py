"""The child's end: ``python -m atomr_infer.bridge.child FD PARENT_PID``.

It is run as a program, and nothing of the parent's is in it.
"""
