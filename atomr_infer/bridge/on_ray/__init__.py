"""The bridge to an engine that runs in a Ray cluster.

The parent knows nothing of Ray, which has threads, signal handlers and pins of its
own.  Its child is a relay, in an interpreter that has Ray.  The relay has Ray set the
resources aside by an actor, and the actor starts the engine's process on its node::

    parent  --socket pair--  relay  ..Ray..  actor
                               |               |
                               +-----TCP-----  child (the engine)

The child is that of any other deployment, with a connection to the relay for its
socket.  Ray carries no frame: a call of an actor costs more than a token's time.

Who dies takes the others along: the parent's death is the relay's (``lineage``), with
the relay's ends its connection and, by Ray, its actor, and with each of them the child.
"""
