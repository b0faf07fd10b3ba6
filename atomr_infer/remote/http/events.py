"""What a client tells telemetry about its connections.

Free when nobody listens.  An event names the origin and never a header, a path
or a body.
"""

from __future__ import annotations

import attrs

from atomr import telemetry


@attrs.frozen
class ConnectionEvents:
    """The events of the connections to one origin.

    Attributes:
        origin: scheme, host and port, as text.
    """

    origin: str

    def opened(self, *, connect_s: float, protocol: str) -> None:
        """Tell that a connection was opened; ``connect_s`` includes TLS."""
        if telemetry.handlers:
            telemetry.emit(
                ("atomr_infer", "connection", "open"),
                {"connect_s": connect_s},
                {"origin": self.origin, "protocol": protocol},
            )

    def reused(self, *, exchanges: int) -> None:
        """Tell that a connection takes its next request."""
        if telemetry.handlers:
            telemetry.emit(
                ("atomr_infer", "connection", "reuse"),
                {"exchanges": exchanges},
                {"origin": self.origin},
            )

    def closed(self, *, lifetime_s: float, exchanges: int, reason: str) -> None:
        """Tell that a connection was closed, and why."""
        if telemetry.handlers:
            telemetry.emit(
                ("atomr_infer", "connection", "close"),
                {"lifetime_s": lifetime_s, "exchanges": exchanges},
                {"origin": self.origin, "reason": reason},
            )

    def retried(self, *, reason: str) -> None:
        """Tell that a request is sent once more on another connection."""
        if telemetry.handlers:
            telemetry.emit(
                ("atomr_infer", "connection", "retry"),
                {},
                {"origin": self.origin, "reason": reason},
            )
