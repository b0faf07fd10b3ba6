"""What nodes tell each other of deployments: as it is put, as it is understood."""

from __future__ import annotations

import pytest

from atomr_infer.policy.lifecycle.deployment_state import State
from atomr_infer.serving.placing.records import (
    Claim,
    Entry,
    Facts,
    digest_of,
    from_plain,
    is_outdated,
    revised,
    still_rivals,
    to_plain,
)


def test_a_claim_is_put_without_what_is_as_by_default() -> None:
    claim = Claim(state=State.LOADING, gpus=((0, 1), ()), digest="d")
    plain = to_plain(claim)
    assert plain == {"state": "loading", "gpus": ((0, 1), ()), "digest": "d"}
    assert from_plain(Claim, plain, of="tiny") == claim


def test_facts_come_back() -> None:
    facts = Facts(
        roles=("gpu",), labels={"region": "eu"}, gpus_gib=(80.0,), leaving=True
    )
    assert from_plain(Facts, to_plain(facts), of="a") == facts


def test_what_a_later_version_adds_is_left_out() -> None:
    found = from_plain(Claim, {"state": "failed", "colour": "red"}, of="tiny")
    assert found == Claim(state=State.FAILED)


@pytest.mark.parametrize(
    "value", [None, 3, {"state": "flying"}, {"gpus": []}, {"state": 1}, [1, 2]]
)
def test_what_makes_no_sense_is_no_value(
    value: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert from_plain(Claim, value, of="tiny") is None
    assert "what a node says of tiny is not understood" in caplog.text


def table(port: int) -> dict[str, object]:
    return {"name": "tiny", "runtime": "mock", "options": {"port": port}}


def put(now: Entry | None, port: int, *, at_start: bool = False) -> Entry:
    entry = revised(now, table(port), remote=False, by="a", at_start=at_start)
    assert entry is not None
    return entry


def test_each_change_is_a_revision_that_knows_those_before_it() -> None:
    one = put(None, 1)
    two = put(one, 2)
    three = put(two, 3)
    assert [e.revision for e in (one, two, three)] == [1, 2, 3]
    assert three.before == (two.digest, one.digest)


def test_what_is_the_same_is_no_revision() -> None:
    one = put(None, 1)
    assert revised(one, table(1), remote=False, by="b") is None


def test_what_comes_back_is_not_older_than_itself() -> None:
    one = put(None, 1)
    back = put(put(one, 2), 1)
    assert (back.digest, back.revision) == (one.digest, 3)
    assert back.before == (put(one, 2).digest,)
    assert not is_outdated(back, back.digest)


def test_no_more_than_sixteen_revisions_are_remembered() -> None:
    entry = put(None, 0)
    for port in range(1, 40):
        entry = put(entry, port)
    assert len(entry.before) == 16
    assert entry.before[0] == digest_of(table(38))


def test_a_file_from_which_all_have_gone_on_is_outdated() -> None:
    now = put(put(None, 1), 2)
    assert is_outdated(now, digest_of(table(1)))
    assert not is_outdated(now, digest_of(table(2)))
    assert not is_outdated(now, digest_of(table(3)))
    assert not is_outdated(None, digest_of(table(1)))


def test_an_old_file_at_a_start_is_no_rival_of_what_has_gone_on_from_it() -> None:
    alone, gone_on = put(None, 1, at_start=True), put(put(None, 1), 2)
    assert still_rivals([alone, gone_on]) == [gone_on]
    assert still_rivals([gone_on, alone, put(None, 3)]) == [gone_on, put(None, 3)]
    assert still_rivals([alone]) == [alone]
    assert still_rivals([]) == []


def test_what_was_put_on_purpose_is_a_rival_however_old_it_looks() -> None:
    # Removed and deployed anew, it has no revisions before it.
    anew, gone_on = put(None, 1), put(put(None, 1), 2)
    assert still_rivals([anew, gone_on]) == [anew, gone_on]


def test_an_old_file_at_a_start_is_a_rival_of_no_more_revisions() -> None:
    # Behind a cut it was put back, while others went on from both.
    back = put(put(put(None, 1), 2), 1, at_start=True)
    gone_on = put(put(put(None, 1), 2), 3)
    assert still_rivals([back, gone_on]) == [back, gone_on]
    # Two who know of each other's: neither is the older one.
    circle = [
        put(put(None, 1), 2, at_start=True),
        put(put(None, 2), 1, at_start=True),
    ]
    assert still_rivals(circle) == circle


def test_an_edit_of_what_a_start_put_is_on_purpose() -> None:
    first = put(None, 1, at_start=True)
    assert (first.at_start, put(first, 2).at_start) == (True, False)
    assert put(put(None, 1), 2, at_start=True).at_start


def test_an_entry_of_a_node_that_knows_of_no_starts_is_on_purpose() -> None:
    entry = from_plain(
        Entry, {"table": table(1), "digest": "d", "revision": 1}, of="tiny"
    )
    assert entry is not None
    assert not entry.at_start
    assert "at_start" not in to_plain(entry)
    first = put(None, 1, at_start=True)
    assert from_plain(Entry, to_plain(first), of="tiny") == first
