"""What names a conversation, and what of a prompt is remembered."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.model.asks import Tool
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.parts import ImagePart, Inline, TextPart, ToolResultPart, Url
from atomr_infer.policy.routing.affinity import (
    BLOCK_BYTES,
    MAX_BLOCKS,
    ReadPrefixes,
    prefix_blocks,
    session_of,
)

BLOCK = "x" * BLOCK_BYTES


def batch(*texts: str, **more: object) -> ExecuteBatch:
    messages = tuple(Message(Role.USER, text) for text in texts)
    return ExecuteBatch(request_id="r", model="m", messages=messages, **more)  # type: ignore[arg-type]


def test_the_client_names_its_conversation_by_header_cache_key_or_user() -> None:
    keyed = batch("hi", user="u", extra={"prompt_cache_key": b'"k"'})
    named = attrs.evolve(keyed, session="s")
    found = [session_of(each) for each in (named, keyed, batch("hi", user="u"))]
    assert len({*found}) == 3
    assert found[0] == session_of(batch("other", session="s"))
    assert session_of(batch("hi")) is None


def test_prompts_share_the_blocks_of_what_they_begin_with() -> None:
    one = prefix_blocks(batch(BLOCK * 3, "end"))
    other = prefix_blocks(batch(BLOCK * 2 + "y" * BLOCK_BYTES))
    assert len(one) == len(other) == 3
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_a_block_stands_for_all_before_it() -> None:
    one = prefix_blocks(batch("a" * BLOCK_BYTES + BLOCK))
    other = prefix_blocks(batch("b" * BLOCK_BYTES + BLOCK))
    assert not {*one} & {*other}


def test_a_short_prompt_has_no_blocks_and_a_long_one_not_all() -> None:
    assert prefix_blocks(batch("short")) == ()
    assert len(prefix_blocks(batch(BLOCK * (MAX_BLOCKS + 9)))) == MAX_BLOCKS


@pytest.mark.parametrize(
    "part",
    [
        TextPart(BLOCK),
        ToolResultPart(call_id="c", content=(TextPart(BLOCK),)),
    ],
    ids=["text", "result"],
)
def test_all_that_a_model_reads_is_looked_at(part: TextPart | ToolResultPart) -> None:
    made = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, (part,)),)
    )
    assert len(prefix_blocks(made)) == 1


def test_other_pictures_and_tools_are_other_prompts() -> None:
    pictures = (
        Inline("image/png", "AAAA"),
        Inline("image/png", "BBBB"),
        Url("https://x"),
    )
    made = [
        ExecuteBatch(
            request_id="r",
            model="m",
            messages=(Message(Role.USER, (ImagePart(source=p), TextPart(BLOCK))),),
        )
        for p in pictures
    ]
    tool = Tool(name="t", description=None, parameters=None)
    made.append(attrs.evolve(made[0], tools=(tool,)))
    assert len({prefix_blocks(each)[0] for each in made}) == 4


def test_the_longest_known_beginning_is_found_with_who_read_it_last_first() -> None:
    read = ReadPrefixes()
    read.note((b"1", b"2", b"3"), "a")
    read.note((b"1", b"2"), "b")
    assert read.longest((b"1", b"2", b"9")) == (2, ("b", "a"))
    assert read.longest((b"1", b"2", b"3", b"4")) == (3, ("a",))
    assert read.longest((b"9",)) == (0, ())


def test_what_is_remembered_is_bounded() -> None:
    read = ReadPrefixes(most=10)
    for number in range(100):
        read.note((b"%d" % number,), "a")
    assert len(read) == 10
    assert read.longest((b"99",)) == (1, ("a",))
    assert read.longest((b"9",)) == (0, ())
    for owner in "abcdef":
        read.note((b"99",), owner)
    assert read.longest((b"99",)) == (1, ("f", "e", "d", "c"))
