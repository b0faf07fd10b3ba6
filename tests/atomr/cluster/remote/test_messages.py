"""Which messages cross, and what becomes of those that do not."""

from __future__ import annotations

import dataclasses
import enum
from typing import Any

import attrs
import msgspec
import pytest

from atomr.cluster.remote import RemoteProcesses
from atomr.cluster.remote.codec import MAX_DEPTH, Codec, PidForm, RefusedError
from atomr.cluster.remote.messages import Messages
from atomr.errors import UnregisteredMessageError, short
from atomr.process import Request
from atomr.refs import Pid, Ref


@attrs.frozen
class Put(Request[None]):
    key: str
    value: int | str
    by: Pid | None = None


@dataclasses.dataclass
class Batch:
    puts: list[Put]
    seen: dict[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)


class Colour(enum.Enum):
    RED = "red"


class Paint(msgspec.Struct):
    colour: Colour


@attrs.frozen
class Positive:
    number: int = attrs.field(validator=attrs.validators.gt(0))


def _some(parts: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(parts) or (1, 2)


@attrs.frozen
class Made:
    """What attrs makes of its fields is made over there as well."""

    key: str
    parts: tuple[int, ...] = attrs.field(converter=_some, default=())
    size: int = attrs.field(init=False, default=3)
    more: list[int] = attrs.field(factory=list)


class Hidden(msgspec.Struct):
    _key: str


class Bad(msgspec.Struct):
    number: int

    def __post_init__(self) -> None:
        if self.number < 0:
            raise KeyError("a bug in a user's class")


MESSAGES = Messages(Put, Batch, Colour, Paint, Positive, Made, Hidden, Bad)
PID = Pid(7, "seven")


def codec(messages: Messages = MESSAGES) -> Codec:
    def form(pid: Pid) -> PidForm:
        return PidForm("here", 1, pid.number, pid.label)

    def pid(found: PidForm) -> Pid:
        assert found == PidForm("here", 1, 7, "seven")
        return PID

    return Codec(messages, form=form, pid=pid)


@pytest.mark.parametrize(
    "message",
    [
        Put("k", 1, by=PID),
        Put("k", "v"),
        Batch([Put("a", 1), Put("b", 2, PID)], {"x": (1, 2), "y": ()}),
        Paint(Colour.RED),
        Colour.RED,
        Made("k", ()),
        Hidden("k"),
        [Put("k", 1), (Colour.RED, {"paint": Paint(Colour.RED)})],
        (PID, [PID, None]),
        {1: 2.5, "x": b"y", None: True},
        2**63,
        -(2**63),
        [[[[()]]]],
    ],
)
def test_a_message_comes_back_equal_and_of_its_type(message: object) -> None:
    tag, body = codec().encode(message)
    # As it comes over a wire: bytes that nobody shares.
    found = codec().decode(tag, msgspec.Raw(bytes(body)))
    assert (found, type(found)) == (message, type(message))


@attrs.frozen
class Other:
    value: int


@pytest.mark.parametrize(
    ("message", "type_name", "remedy"),
    [
        (Other(1), "Other", "add it: Messages(..., Other)"),
        ([Other(1)], "Other", "add it: Messages(..., Other)"),
        ({"x": (Other(1),)}, "Other", "add it: Messages(..., Other)"),
        ({(1, 2): 3}, "tuple", "a key of a dict is a text, a number or bytes"),
        ({1, 2}, "set", "send a list, a tuple or a dict in its place"),
        (object(), "object", "a class of your own that is registered"),
        (Ref(), "Ref", "a class of your own that is registered"),
        (Put, "type", "a class of your own that is registered"),
        (ValueError("x"), "ValueError", "a class of your own"),
    ],
)
def test_what_is_not_registered_is_refused_where_it_is_sent(
    message: object, type_name: str, remedy: str
) -> None:
    with pytest.raises(UnregisteredMessageError) as caught:
        codec().encode(message)
    assert caught.value.type_name == type_name
    assert f": {type_name} is not among the messages" in str(caught.value)
    assert remedy in str(caught.value)


@pytest.mark.parametrize("message", [2**64, [-(2**64)], Put("k", 2**70)])
def test_a_number_of_more_than_64_bits_does_not_cross(message: object) -> None:
    with pytest.raises(ValueError, match="does not cross"):
        codec().encode(message)


def nested(depth: int, leaf: object) -> object:
    for _ in range(depth):
        leaf = [leaf]
    return leaf


def test_what_is_nested_too_deep_does_not_cross() -> None:
    assert codec().encode(nested(MAX_DEPTH, 1))
    with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
        codec().encode(nested(MAX_DEPTH + 1, 1))
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(ValueError, match=f"deeper than {MAX_DEPTH}"):
        codec().encode(endless)


def ext(code: int, data: bytes) -> bytes:
    return msgspec.msgpack.encode(msgspec.msgpack.Ext(code, data))


def tuples(depth: int) -> bytes:
    body = b"\x90"
    for _ in range(depth):
        body = ext(2, b"\x91" + body)
    return body


@pytest.mark.parametrize(
    ("tag", "body", "code"),
    [
        ("Other", b"\x80", "unknown_message"),
        ("os.system", b"\xa2ls", "unknown_message"),
        ("Put", b"\x80", "bad_message"),
        ("Put", b"", "bad_message"),
        ("Put", b"\xc1", "bad_message"),
        ("Put", msgspec.msgpack.encode({"key": 1, "value": 1}), "bad_message"),
        ("Put", msgspec.msgpack.encode(["k", 1]), "bad_message"),
        ("Positive", msgspec.msgpack.encode({"number": 0}), "bad_message"),
        ("Bad", msgspec.msgpack.encode({"number": -1}), "bad_message"),
        ("Colour", msgspec.msgpack.encode("green"), "bad_message"),
        ("", b"", "bad_message"),
        ("", ext(1, b"\x91\xa1x"), "bad_message"),
        ("", ext(2, b"\xc0"), "bad_message"),
        ("", ext(3, b"\xc0"), "bad_message"),
        ("", ext(3, msgspec.msgpack.encode(["", 1])), "bad_message"),
        ("", ext(3, msgspec.msgpack.encode(["Other", {}])), "unknown_message"),
        ("", ext(4, b""), "bad_message"),
        ("", ext(-1, b"\0\0\0\0"), None),
        ("", tuples(MAX_DEPTH + 1), "bad_message"),
        ("", b"\x91" * 100_000, "bad_message"),
        ("", b"\xdd\xff\xff\xff\xff", "bad_message"),
    ],
)
def test_what_is_no_message_is_refused(tag: str, body: bytes, code: str | None) -> None:
    decoder = codec()
    if code is None:
        # msgpack's own type for times; a value as any other.
        assert decoder.decode(tag, msgspec.Raw(body)) is not None
        return
    with pytest.raises(RefusedError) as caught:
        decoder.decode(tag, msgspec.Raw(body))
    assert caught.value.code == code
    # It concerns that one alone.
    assert decoder.decode("", msgspec.Raw(tuples(MAX_DEPTH))) is not None


@attrs.frozen
class Vague:
    value: object


@dataclasses.dataclass
class VagueInside:
    values: dict[str, list[Any]]


@attrs.frozen
class Deep:
    inside: list[Vague | None]


@attrs.frozen
class Foreign:
    ref: Ref


@dataclasses.dataclass
class Tree:
    children: list[Tree]


@attrs.frozen
class Private:
    _key: str


@dataclasses.dataclass
class HoldsPrivate:
    inside: Private | None


@attrs.frozen(cache_hash=True)
class Hashed:
    key: str


@pytest.mark.parametrize(
    ("cls", "text"),
    [
        (Private, "Private._key is private, and would not be sent"),
        (HoldsPrivate, "Private._key is private"),
        (Hashed, "leave out cache_hash=True"),
        (Vague, "Vague.value does not say what it holds"),
        (VagueInside, "VagueInside.values does not say what it holds"),
        (Deep, "Vague.value does not say what it holds"),
        (Foreign, "Foreign.ref holds a Ref, which does not cross"),
        (int, "expected an attrs class"),
        ("Put", "expected an attrs class"),
        (Ref, "expected an attrs class"),
    ],
)
def test_a_type_that_could_not_be_made_anew_is_refused(cls: Any, text: str) -> None:
    with pytest.raises(TypeError, match=text):
        Messages(cls)


def test_a_type_may_hold_itself() -> None:
    made = codec(Messages(Tree))
    tree = Tree([Tree([]), Tree([Tree([])])])
    assert made.decode(*made.encode(tree)) == tree


def test_two_types_of_one_name_need_two_names() -> None:
    mine = type("Put", (msgspec.Struct,), {})
    with pytest.raises(ValueError, match="other_name=Type"):
        Messages(Put, mine)
    both = Messages(Put, mine_put=mine)
    assert both.by_name == {"Put": Put, "mine_put": mine}
    assert repr(both) == "Messages(Put, mine_put)"


def test_messages_are_put_together() -> None:
    assert (Messages(Put) | Messages(Put, Paint)).by_name == {
        "Put": Put,
        "Paint": Paint,
    }


@pytest.mark.parametrize("messages", [Put, [Put]])
def test_types_that_are_no_messages_yet_are_refused(messages: Any) -> None:
    with pytest.raises(TypeError) as caught:
        RemoteProcesses(messages)
    assert str(caught.value) == (
        f"RemoteProcesses({short(messages)}): expected Messages, as in"
        " RemoteProcesses(Messages(Sell, Buy))"
    )
