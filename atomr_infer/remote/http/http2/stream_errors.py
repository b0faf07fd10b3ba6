"""h2, which ends a stream where the mistake is the stream's alone.

h2 ends the whole connection for a malformed answer.  RFC 9113 does not: fields
that no answer may have, a body that is longer or shorter than it said, data
before a head, data beyond the stream's own window are errors of that stream
(8.1.1, 6.9), which is reset, and the others go on.  A proxy that asks for a
hundred clients over one connection would break ninety-nine answers for one.

What concerns all streams stays an error of the connection: compressed fields
that cannot be read (4.3), the window of the connection, frames on streams that
are idle or have ended, whatever is no HTTP/2.

Pure.

Source: RFC 9113, 5.4.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import h2.connection
import h2.events
import h2.exceptions
from h2.errors import ErrorCodes
from h2.stream import StreamState
from hyperframe.frame import DataFrame, HeadersFrame, PriorityFrame

if TYPE_CHECKING:
    from hyperframe.frame import Frame

# What these say of a stream, they say of the connection.
_OF_THE_CONNECTION = (
    h2.exceptions.DenialOfServiceError,
    h2.exceptions.NoSuchStreamError,
    h2.exceptions.StreamIDTooLowError,
    h2.exceptions.TooManyStreamsError,
)

# What h2's own errors about a stream come from: an input that its state does
# not take.  An error from decompression has another cause.
_CAUSES_IN_A_STREAM = (type(None), KeyError, AssertionError)


class Connection(h2.connection.H2Connection):
    """An h2 connection; a stream that is reset for its peer's mistake is told.

    By a ``StreamReset`` that is not remote.
    """

    def _receive_frame(self, frame: Frame) -> list[h2.events.Event]:
        # There is no public seam: behind this one h2 has said goodbye already.
        is_ours = frame.stream_id in self.streams
        try:
            return super()._receive_frame(frame)
        except h2.exceptions.ProtocolError as error:
            code = self._stream_error(frame, error) if is_ours else None
            if code is None:
                raise
            return self._break(frame, code)

    def _stream_error(
        self, frame: Frame, error: h2.exceptions.ProtocolError
    ) -> ErrorCodes | None:
        """Return what a stream is reset with; None: it is the connection's error."""
        concerns_a_stream = (
            isinstance(frame, DataFrame | HeadersFrame | PriorityFrame)
            and isinstance(error.__cause__, _CAUSES_IN_A_STREAM)
            and not isinstance(error, _OF_THE_CONNECTION)
        )
        if not concerns_a_stream:
            return None
        if isinstance(frame, DataFrame) and self.inbound_flow_control_window < 0:
            return None
        return ErrorCodes(error.error_code)

    def _break(self, frame: Frame, code: ErrorCodes) -> list[h2.events.Event]:
        stream_id = frame.stream_id
        machine = self.streams[stream_id].state_machine
        if machine.stream_closed_by is None:
            # h2 may have closed it without a word to the peer; and what is still
            # on its way would then be an error of the connection.
            machine.state = StreamState.OPEN
            self.reset_stream(stream_id, code)
        events: list[h2.events.Event] = []
        if isinstance(frame, DataFrame):
            # Counted in the connection's window, whatever became of it.
            size = frame.flow_controlled_length
            events.append(
                h2.events.DataReceived(
                    stream_id=stream_id, data=b"", flow_controlled_length=size
                )
            )
        events.append(
            h2.events.StreamReset(
                stream_id=stream_id, error_code=code, remote_reset=False
            )
        )
        return events
