"""Signatures for clients that cannot carry them."""

from __future__ import annotations

from atomr_infer.wire.gemini.signature_memory import SignatureMemory


def test_call_is_known_however_its_arguments_are_written() -> None:
    memory = SignatureMemory()
    memory.put("1", name="f", arguments='{"a":1,"b":[2]}', signature="s")
    assert memory.get("1", name="f", arguments='{ "b" : [2], "a" : 1 }') == "s"


def test_another_call_of_the_same_id_is_not_taken_for_it() -> None:
    memory = SignatureMemory()
    memory.put("1", name="f", arguments="{}", signature="s")
    assert memory.get("1", name="g", arguments="{}") is None
    assert memory.get("2", name="f", arguments="{}") is None
    assert memory.get("1", name="f", arguments='{"a":1}') is None
    assert memory.get("1", name="f", arguments="") == "s"


def test_arguments_that_are_no_json_are_taken_as_they_are() -> None:
    memory = SignatureMemory()
    memory.put("1", name="f", arguments="{nope", signature="s")
    assert memory.get("1", name="f", arguments="{nope") == "s"


def test_oldest_goes_first_when_there_is_no_room() -> None:
    memory = SignatureMemory(max_bytes=6)
    for number in range(4):
        memory.put(str(number), name="f", arguments="{}", signature="ss")
    assert [
        memory.get(str(number), name="f", arguments="{}") for number in range(4)
    ] == [
        None,
        "ss",
        "ss",
        "ss",
    ]


def test_signature_that_is_put_again_takes_no_more_room() -> None:
    memory = SignatureMemory(max_bytes=4)
    memory.put("0", name="f", arguments="{}", signature="ss")
    for _ in range(9):
        memory.put("1", name="f", arguments="{}", signature="tt")
    assert (
        memory.get("0", name="f", arguments="{}"),
        memory.get("1", name="f", arguments="{}"),
    ) == ("ss", "tt")


def test_signature_that_is_too_large_is_not_kept() -> None:
    memory = SignatureMemory(max_bytes=4)
    memory.put("1", name="f", arguments="{}", signature="sssss")
    assert memory.get("1", name="f", arguments="{}") is None
