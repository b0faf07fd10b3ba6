"""What is written in Prometheus' format is what its own parser reads."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from atomr_infer.wire.prometheus import (
    Family,
    Sample,
    Type,
    encode,
    histogram,
    joined,
    labels,
    number,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

ASKED = Family(
    "asked_total",
    Type.COUNTER,
    "Asked.\nOr \\ not.",
    [Sample(3.0, labels({"node": "a", "model": 'x"\\\n{},= é'}))],
)
TOOK = Family(
    "took_seconds",
    Type.HISTOGRAM,
    "Took.",
    histogram((0.5, 2.0), (1, 0, 2), 11.25, labels({"node": "a"})),
)
NONE = Family("none", Type.GAUGE, "Nothing.", ())


def read(text: bytes) -> Iterator[tuple[str, str, str, dict[str, str], float]]:
    """Yield family, type, sample, labels and value."""
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            yield (family.name, family.type, sample.name, sample.labels, sample.value)


def test_a_family_is_read_as_it_was_written() -> None:
    assert list(read(encode([ASKED, NONE, TOOK]))) == [
        (
            "asked",
            "counter",
            "asked_total",
            {"node": "a", "model": 'x"\\\n{},= é'},
            3.0,
        ),
        *(
            ("took_seconds", "histogram", f"took_seconds_{name}", of, value)
            for name, of, value in [
                ("bucket", {"node": "a", "le": "0.5"}, 1.0),
                ("bucket", {"node": "a", "le": "2"}, 1.0),
                ("bucket", {"node": "a", "le": "+Inf"}, 3.0),
                ("sum", {"node": "a"}, 11.25),
                ("count", {"node": "a"}, 3.0),
            ]
        ),
    ]


def test_the_text_is_the_format_s() -> None:
    assert encode([ASKED]).decode() == (
        "# HELP asked_total Asked.\\nOr \\\\ not.\n"
        "# TYPE asked_total counter\n"
        'asked_total{node="a",model="x\\"\\\\\\n{},= é"} 3\n'
    )
    assert encode([]) == b""


def test_nodes_are_joined_family_by_family_and_nothing_is_added() -> None:
    other = Family("asked_total", Type.COUNTER, "Else.", [Sample(1, (("node", "b"),))])
    lone = Family("lone", Type.GAUGE, "Lone.", [Sample(math.nan, (("node", "b"),))])
    text = joined([encode([ASKED, TOOK]), b"garbage 1\n", encode([other, lone])])
    assert text.count(b"# HELP asked_total ") == text.count(b"# TYPE asked_total ") == 1
    found = list(read(text))
    assert [(name, of["node"]) for name, _, _, of, _ in found] == [
        ("asked", "a"),
        ("asked", "b"),
        *[("took_seconds", "a")] * 5,
        ("lone", "b"),
    ]
    assert joined([]) == b""


@given(
    st.floats(),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
    st.text(alphabet=st.characters(exclude_categories=["Cs"])),
)
def test_any_number_and_label_survives(value: float, one: str, two: str) -> None:
    of = labels({"one": one, "two": two})
    text = joined([encode([Family("x", Type.GAUGE, "X.", [Sample(value, of)])])])
    [(_, _, _, back, number_back)] = read(text)
    assert back == {"one": one, "two": two}
    assert number_back == value or (math.isnan(value) and math.isnan(number_back))


def test_half_a_surrogate_does_not_break_the_page() -> None:
    of = labels({"model": "a\ud800b"})
    text = encode([Family("x", Type.GAUGE, "X.", [Sample(1.0, of)])])
    assert text.splitlines()[-1] == b'x{model="a?b"} 1'


def test_large_numbers_stay_whole() -> None:
    assert number(2.0**53) == "9007199254740992"
    assert float(number(1e300)) == 1e300
