"""What virtual keys open: by example, and whatever order it is heard in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import attrs
import pytest
from hypothesis import given, settings
from hypothesis.strategies import permutations

from atomr_infer.model.asker import Asker, Visitor
from atomr_infer.model.key_secret import digest_of, make_secret
from atomr_infer.model.team import Team
from atomr_infer.model.virtual_key import KeySecret, VirtualKey
from atomr_infer.policy.tenants.key_table import End, KeyTable, Standing

if TYPE_CHECKING:
    from collections.abc import Callable

ID = "key_0123456789abcdef"
OTHER = "key_fedcba9876543210"
KEY = VirtualKey(id=ID, name="ci", created_at_s=100, expires_at_s=1_000)
OLD = KeySecret(
    digest=digest_of(make_secret(b"1" * 32)), key=ID, shown="old", created_at_s=100
)
NEW = KeySecret(
    digest=digest_of(make_secret(b"2" * 32)), key=ID, shown="new", created_at_s=200
)


def table(*facts: Callable[[KeyTable], None]) -> KeyTable:
    made = KeyTable()
    for fact in facts:
        fact(made)
    return made


def standing(made: KeyTable, secret: KeySecret = OLD) -> Standing:
    found = made.find(secret.digest)
    assert found is not None
    return found


def key(t: KeyTable) -> None:
    t.take_key(KEY)


def old(t: KeyTable) -> None:
    t.take_secret(OLD)


def new(t: KeyTable) -> None:
    t.take_secret(NEW)


def test_a_secret_opens_what_its_key_says_until_it_expires() -> None:
    made = table(key, old)
    assert standing(made) == Standing(
        key=KEY,
        secret=OLD,
        until_s=1_000.0,
        end=End.EXPIRED,
        ended_at_s=1_000,
        visitor=Visitor(owner=b"virtual " + ID.encode(), key=KEY, asker=Asker(ID)),
    )
    assert standing(made).is_open(999.9)
    assert not standing(made).is_open(1_000.0)


def test_a_key_without_an_end_has_none() -> None:
    made = table(lambda t: t.take_key(attrs.evolve(KEY, expires_at_s=None)), old)
    found = standing(made)
    assert (found.until_s, found.end, found.ended_at_s) == (math.inf, None, None)


def test_a_secret_whose_key_is_not_known_opens_nothing() -> None:
    made = table(old)
    assert made.find(OLD.digest) is None
    assert made.find(NEW.digest) is None


def test_a_revoked_key_is_closed_whatever_the_clock_says() -> None:
    made = table(key, old, new, lambda t: t.take_revoked(ID, 5_000))
    for secret in (OLD, NEW):
        found = standing(made, secret)
        assert (found.until_s, found.end) == (-math.inf, End.REVOKED)
        assert found.ended_at_s == 5_000
        assert not found.is_open(0.0)


def test_terms_that_are_written_again_do_not_undo_a_revocation() -> None:
    made = table(key, old, lambda t: t.take_revoked(ID, 300))
    made.take_key(attrs.evolve(KEY, name="again", expires_at_s=None))
    made.take_secret(NEW)
    assert made.is_over(ID, 301.0)


def test_an_old_secret_ends_before_its_key_and_the_new_one_does_not() -> None:
    made = table(key, old, new, lambda t: t.take_end(OLD.digest, 500))
    assert standing(made).end is End.ROTATED
    assert standing(made).until_s == 500.0
    assert standing(made, NEW).until_s == 1_000.0


def test_the_earlier_of_two_ends_counts() -> None:
    made = table(key, old)
    for at_s in (500, 400, 900):
        made.take_end(OLD.digest, at_s)
    assert standing(made).until_s == 400.0


def test_an_end_after_the_keys_own_changes_nothing() -> None:
    made = table(key, old, lambda t: t.take_end(OLD.digest, 2_000))
    assert standing(made).end is End.EXPIRED


def test_without_grace_a_secret_is_closed_whatever_the_clock_says() -> None:
    made = table(key, old, lambda t: t.take_end(OLD.digest, 0))
    found = standing(made)
    assert (found.is_open(0.0), found.end, found.ended_at_s) == (
        False,
        End.ROTATED,
        None,
    )


def test_a_key_of_a_team_that_is_not_there_is_closed_until_it_is() -> None:
    of_team = attrs.evolve(KEY, team="web", weight=3.0)
    made = table(lambda t: t.take_key(of_team), old)
    assert (standing(made).end, standing(made).is_open(0.0)) == (End.NO_TEAM, False)
    made.take_teams([Team(name="web", weight=2.0)])
    assert standing(made).is_open(0.0)
    assert standing(made).visitor.asker == Asker(ID, "web", 3.0, 2.0)
    made.take_teams([])
    assert not standing(made).is_open(0.0)


def test_keys_are_found_by_id_and_by_name() -> None:
    twin = attrs.evolve(KEY, id=OTHER)
    made = table(key, lambda t: t.take_key(twin))
    assert made.named(ID) == (KEY,)
    assert made.named("ci") == (KEY, twin)
    assert made.named("nobody") == ()


FACTS: tuple[Callable[[KeyTable], None], ...] = (
    key,
    old,
    new,
    lambda t: t.take_end(OLD.digest, 500),
    lambda t: t.take_end(OLD.digest, 400),
    lambda t: t.take_revoked(OTHER, 250),
    lambda t: t.take_key(VirtualKey(id=OTHER, name="other", team="web")),
    lambda t: t.take_secret(attrs.evolve(NEW, key=OTHER, digest=b"3" * 32)),
    lambda t: t.take_teams([Team(name="web")]),
)


@settings(max_examples=200, deadline=None)
@given(order=permutations(range(len(FACTS))))
def test_who_has_heard_the_same_holds_the_same(order: list[int]) -> None:
    made = table(*(FACTS[each] for each in order))
    expected = table(*FACTS, *FACTS)
    assert {s.digest: made.find(s.digest) for s in made.secrets()} == {
        s.digest: expected.find(s.digest) for s in expected.secrets()
    }


@pytest.mark.parametrize(
    ("models", "served", "visible"),
    [
        ((), ("a", "gpt-*"), ("a", "gpt-*")),
        (("a",), ("a", "b"), ("a",)),
        (("gpt-*",), ("gpt-5", "claude"), ("gpt-5",)),
        (("gpt-6", "gpt-6-mini"), ("gpt-*",), ("gpt-6", "gpt-6-mini")),
        (("gpt-6*",), ("gpt-*", "claude"), ("gpt-6*",)),
        (("*",), ("gpt-*", "claude"), ("gpt-*", "claude")),
        (("mistral",), ("gpt-*",), ()),
    ],
)
def test_of_what_is_served_a_key_sees_what_it_may_use(
    models: tuple[str, ...], served: tuple[str, ...], visible: tuple[str, ...]
) -> None:
    assert attrs.evolve(KEY, models=models).visible(served) == visible
