"""Signatures for clients that cannot carry them."""

from __future__ import annotations

import tracemalloc

from atomr_infer.wire.gemini.signature_memory import ENTRY_BYTES, SignatureMemory


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
    memory = SignatureMemory(max_bytes=3 * (2 + ENTRY_BYTES))
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
    memory = SignatureMemory(max_bytes=2 * (2 + ENTRY_BYTES))
    memory.put("0", name="f", arguments="{}", signature="ss")
    for _ in range(9):
        memory.put("1", name="f", arguments="{}", signature="tt")
    assert (
        memory.get("0", name="f", arguments="{}"),
        memory.get("1", name="f", arguments="{}"),
    ) == ("ss", "tt")


def test_signature_that_is_too_large_is_not_kept() -> None:
    memory = SignatureMemory(max_bytes=4 + ENTRY_BYTES)
    memory.put("1", name="f", arguments="{}", signature="sssss")
    assert memory.get("1", name="f", arguments="{}") is None


def test_arguments_that_are_whole_files_are_not_kept() -> None:
    file = "x" * 1_000_000
    memory = SignatureMemory()
    tracemalloc.start()
    for number in range(10):
        memory.put(str(number), name="write", arguments=f'"{file}"', signature="s")
    kept_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept_bytes < 500_000
    assert memory.get("9", name="write", arguments=f'"{file}"') == "s"
