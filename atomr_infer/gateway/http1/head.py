"""The head of an HTTP/1.1 request: read strictly, or refused.

A gateway stands in front of other servers, so it must never read a request
otherwise than its neighbours do: where two readings of a head are possible,
the request is refused and the connection closed.  No repair is attempted, not
even where RFC 9112 allows one (bare LF, folded lines, equal lengths twice).

Lines are cut at CR LF, and no CR or LF may be left; control characters are
looked for once, in the whole head.  A name that was found to be good is
remembered, since the same few come with every request.

Pure.

Source: RFC 9110 and RFC 9112.
"""

from __future__ import annotations

import re
from urllib.parse import unquote

import attrs

from atomr_infer.gateway.exchanges.exchange import Notes


@attrs.frozen
class BadRequestError(Exception):
    """The bytes are no request that this server takes; close the connection.

    Attributes:
        status: the HTTP status to answer with.
        message: one sentence for the client.
        target: what was asked for, as it was written, when it came so far: it
            says which dialect the client understands.
    """

    status: int
    message: str
    target: str = ""


@attrs.frozen(kw_only=True)
class HeadLimits:
    """How large a head may be.

    Attributes:
        max_target_bytes: the longest request line.  8000 is the least that
            RFC 9112, 3 asks for.
        max_head_bytes: request line and fields together.  Twice Node's limit:
            agents send long cookies and trace headers.
        max_fields: header fields; as in nginx's and Apache's defaults.
    """

    max_target_bytes: int = 8192
    max_head_bytes: int = 32768
    max_fields: int = 100


# Not frozen: one is made for each request, and freezing doubles what it costs.
@attrs.define(eq=False)
class RequestHead:
    """A request line and its fields, with what they say about the message.

    Attributes:
        method: as sent.
        path: percent-decoded, without the query; of an absolute target too.
        query: the raw bytes behind the question mark.
        headers: name in lower case and value, in order.
        fields: the first value of each name.
        http10: the client speaks HTTP/1.0.
        keep_alive: the client would send another request.
        length: of the body; None for a chunked one.
        expect_continue: the client waits for ``100 Continue``.
        upgrade: the protocol it would change to, in lower case.
        notes: what was worked out of it; the same for all heads of a connection
            that say the same but for their length.
    """

    method: str
    path: str
    query: bytes
    headers: list[tuple[bytes, bytes]]
    fields: dict[bytes, bytes]
    http10: bool
    keep_alive: bool
    length: int | None
    expect_continue: bool
    upgrade: bytes
    notes: Notes = attrs.field(factory=Notes)

    def with_length(self, digits: bytes) -> RequestHead:
        """Return the head that says the same of a body of another length."""
        field = (b"content-length", digits)
        headers = [field if each[0] == field[0] else each for each in self.headers]
        return RequestHead(
            self.method,
            self.path,
            self.query,
            headers,
            {**self.fields, b"content-length": digits},
            self.http10,
            self.keep_alive,
            int(digits),
            self.expect_continue,
            self.upgrade,
            self.notes,
        )


_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"

_NAME = re.compile(_TOKEN)
_LINE = re.compile(rb"(" + _TOKEN + rb") ([\x21-\x7e]+) HTTP/1\.([01])")
_OTHER_VERSION = re.compile(rb"[^ ]+ [^ ]+ HTTP/(?!1\.[01])\d(?:\.\d)?")
_LENGTH = re.compile(rb"[0-9]{1,18}")
_HOST = re.compile(rb"[0-9A-Za-z.\-_~%!$&'()*+,;=:\[\]]*")
_ABSOLUTE = re.compile(rb"https?://([^/?#]*)", re.IGNORECASE)

# All but the tab, which may stand in a value, and CR and LF, which end it.
_CONTROLS = bytes({*range(32), 127} - set(b"\t\r\n"))

# Names as they were sent, to names in lower case; bounded, for clients make them up.
_known: dict[bytes, bytes] = {}
_MAX_KNOWN = 1024

# Fields whose values are lists, so that a second one continues the first.
_LISTS = frozenset({b"connection", b"upgrade", b"expect", b"transfer-encoding"})

# Twice means two readings.
_ONCE = frozenset({b"content-length", b"host", b"transfer-encoding"})


def parse_head(head: bytes, limits: HeadLimits) -> RequestHead:
    r"""Return the request whose head this is.

    Args:
        head: from the request line to the end of the last field's line, that
            is without the empty line.
        limits: how much is taken.

    Raises:
        BadRequestError: it is malformed, ambiguous or too large.

    >>> head = b"GET /v1/models?a=1 HTTP/1.1\r\nHost: here\r\n"
    >>> request = parse_head(head, HeadLimits())
    >>> request.method, request.path, request.query, request.keep_alive
    ('GET', '/v1/models', b'a=1', True)
    """
    line_end = head.index(b"\r\n")
    if line_end > limits.max_target_bytes:
        raise BadRequestError(414, "the request line is too long")
    matched = _LINE.fullmatch(head, 0, line_end)
    if matched is None:
        raise _bad_line(head[:line_end])
    method, target, minor = matched.groups()
    try:
        return _request(head, limits, method, target, http10=minor == b"0")
    except BadRequestError as error:
        asked = target.decode("latin-1")
        raise BadRequestError(error.status, error.message, asked) from error


def _request(
    head: bytes, limits: HeadLimits, method: bytes, target: bytes, *, http10: bool
) -> RequestHead:
    headers, fields = _fields(head, limits)
    path, query = _target(method, target)
    if b"host" in fields:
        if not _HOST.fullmatch(fields[b"host"]):
            raise BadRequestError(400, "the host field is malformed")
    elif not http10:
        raise BadRequestError(400, "an HTTP/1.1 request needs a host field")
    connection = fields.get(b"connection", b"").lower()
    return RequestHead(
        method=method.decode(),
        path=path,
        query=query,
        headers=headers,
        fields=fields,
        http10=http10,
        keep_alive=_keeps_alive(connection, http10=http10),
        length=_length(fields, http10=http10),
        expect_continue=_expects(fields, http10=http10),
        upgrade=_upgrade(fields, connection),
    )


def bad_start(data: bytes, limits: HeadLimits) -> BadRequestError | None:
    """Say whether the unfinished head can still become a good one."""
    if len(data) > limits.max_head_bytes:
        if data.find(b"\r\n", 0, limits.max_target_bytes) < 0:
            return BadRequestError(414, "the request line is too long")
        return BadRequestError(431, "the header fields are too large")
    if b"\r\n" not in data and len(data) > limits.max_target_bytes:
        return BadRequestError(414, "the request line is too long")
    # A line that ends with a bare LF would never complete the head.
    if data.count(b"\n") != data.count(b"\r\n"):
        return BadRequestError(400, "a line does not end with CR LF")
    return None


def _bad_line(line: bytes) -> BadRequestError:
    if _OTHER_VERSION.fullmatch(line):
        return BadRequestError(505, "this server speaks HTTP/1.1")
    return BadRequestError(400, "the request line is malformed")


def _fields(
    head: bytes, limits: HeadLimits
) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    lines = head.split(b"\r\n")
    count = len(lines) - 2  # without the request line and what follows the last end
    if not head.count(b"\r") == head.count(b"\n") == count + 1:
        raise BadRequestError(400, "a line does not end with CR LF")
    if len(head.translate(None, _CONTROLS)) != len(head):
        raise BadRequestError(400, "a header field holds a control character")
    if count > limits.max_fields:
        raise BadRequestError(431, "there are too many header fields")
    headers = []
    for line in lines[1:-1]:
        name, colon, value = line.partition(b":")
        key = _known.get(name) or _lower(name)
        if not colon:
            raise BadRequestError(400, "a header field has no colon")
        headers.append((key, value.strip(b" \t")))
    fields = dict(headers)
    if len(fields) != count:
        fields = _merged(headers)
    return headers, fields


def _lower(name: bytes) -> bytes:
    """Return a field's name in lower case, and remember it."""
    if not _NAME.fullmatch(name):
        raise BadRequestError(400, "the name of a header field is malformed")
    if len(_known) < _MAX_KNOWN:
        _known[name] = name.lower()
    return name.lower()


def _merged(headers: list[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """The fields of a head that names some more than once: the first counts."""
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name not in fields:
            fields[name] = value
        elif name in _ONCE:
            raise BadRequestError(400, f"there are two {name.decode()} fields")
        elif name in _LISTS:
            fields[name] += b", " + value
    return fields


def _target(method: bytes, target: bytes) -> tuple[str, bytes]:
    if not target.startswith(b"/"):
        target = _other_form(method, target)
    raw_path, _, query = target.partition(b"?")
    path = raw_path.decode()
    if "%" in path:
        path = unquote(path)
        if not path.isprintable():  # it goes to logs, line by line
            raise BadRequestError(400, "the request's target is malformed")
    return path, query


def _other_form(method: bytes, target: bytes) -> bytes:
    absolute = _ABSOLUTE.match(target)
    if absolute is not None and _HOST.fullmatch(absolute[1]):
        rest = target[absolute.end() :]
        return rest if rest.startswith(b"/") else b"/" + rest
    if method == b"CONNECT":
        raise BadRequestError(501, "this server is no proxy")
    if target == b"*" and method == b"OPTIONS":
        return b"*"
    raise BadRequestError(400, "the request's target is malformed")


def _keeps_alive(connection: bytes, *, http10: bool) -> bool:
    if not connection:
        return not http10
    options = _items(connection)
    return b"close" not in options and (not http10 or b"keep-alive" in options)


def _length(fields: dict[bytes, bytes], *, http10: bool) -> int | None:
    coding = fields.get(b"transfer-encoding")
    declared = fields.get(b"content-length")
    if coding is None:
        if declared is None:
            return 0
        if not _LENGTH.fullmatch(declared):
            raise BadRequestError(400, "the content-length is no number of bytes")
        return int(declared)
    if declared is not None:
        raise BadRequestError(400, "content-length and transfer-encoding together")
    if http10:
        raise BadRequestError(400, "HTTP/1.0 has no transfer-encoding")
    *others, last = coding.lower().split(b",")
    if last.strip(b" \t") != b"chunked":
        raise BadRequestError(501, "the last transfer-encoding must be chunked")
    if others:
        raise BadRequestError(501, "chunked is the only transfer-encoding taken")
    return None


def _expects(fields: dict[bytes, bytes], *, http10: bool) -> bool:
    expected = fields.get(b"expect")
    if expected is None or http10:  # RFC 9110, 10.1.1: a 1.0 client expects nothing
        return False
    if expected.lower() != b"100-continue":
        raise BadRequestError(417, "the only expectation taken is 100-continue")
    return True


def _upgrade(fields: dict[bytes, bytes], connection: bytes) -> bytes:
    wanted = fields.get(b"upgrade")
    if wanted is None or b"upgrade" not in _items(connection):
        return b""
    return wanted.lower()


def _items(value: bytes) -> list[bytes]:
    return [item.strip(b" \t") for item in value.split(b",")]
