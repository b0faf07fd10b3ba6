"""Prometheus' text format, version 0.0.4: families of samples, written and joined.

Each family stands in one piece, and those of several nodes are put together family by
family.  Nothing is added up: a sum from which one node is missing looks like a counter
that began anew, and a rate of it is made of nothing.  The label ``node`` keeps them
apart, and whoever reads adds.

Pure.

Source: Prometheus, "Exposition formats".
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

import attrs

CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"

Labels = tuple[tuple[str, str], ...]
"""Names and values, in the order in which they are written."""

_HELP = "# HELP "


class Type(Enum):
    """What the numbers of a family are."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@attrs.frozen
class Sample:
    """One number.

    Attributes:
        value: the number.
        labels: what it is of.
        suffix: what follows the family's name: ``_bucket``.
    """

    value: float
    labels: Labels = ()
    suffix: str = ""


@attrs.frozen
class Family:
    """Samples of one name.

    Attributes:
        name: with the unit last, and ``_total`` behind it where it counts.
        type: what its numbers are.
        help: what they are, in a sentence.
        samples: the numbers; none: the family is not written.
    """

    name: str
    type: Type
    help: str
    samples: Sequence[Sample]


def encode(families: Iterable[Family]) -> bytes:
    r"""Return families as text.

    >>> up = Family("up", Type.GAUGE, "Runs.", [Sample(1.0, (("node", 'a"b'),))])
    >>> print(encode([up]).decode(), end="")
    # HELP up Runs.
    # TYPE up gauge
    up{node="a\"b"} 1
    """
    lines: list[str] = []
    for family in families:
        if not family.samples:
            continue
        told = family.help.replace("\\", r"\\").replace("\n", r"\n")
        lines.append(f"{_HELP}{family.name} {told}")
        lines.append(f"# TYPE {family.name} {family.type.value}")
        lines += (_line(family.name, sample) for sample in family.samples)
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "replace")


def joined(texts: Iterable[bytes]) -> bytes:
    """Return what several nodes have written with :func:`encode` as one text.

    What does not begin with a family is left out.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for text in texts:
        name = ""
        for line in text.decode("utf-8", "replace").split("\n"):
            if line.startswith(_HELP):
                name = line[len(_HELP) :].partition(" ")[0]
                is_new = name not in heads
                if is_new:
                    heads[name], samples[name] = [line], []
            elif line.startswith("#") and name:
                if is_new:
                    heads[name].append(line)
            elif line and name:
                samples[name].append(line)
    lines = [line for name in heads for line in (*heads[name], *samples[name])]
    return "".join(f"{line}\n" for line in lines).encode()


def histogram(
    bounds: Sequence[float], counts: Sequence[int], total: float, labels: Labels
) -> list[Sample]:
    """Return the samples of one histogram.

    Args:
        bounds: upper bounds of the buckets, ascending, without infinity.
        counts: what fell into each bucket, and what was above the last bound.
        total: the sum of all that was observed.
        labels: what it is of.

    >>> [s.value for s in histogram([1.0], [2, 1], 9.0, ())]
    [2.0, 3.0, 9.0, 3.0]
    """
    found, below = [], 0
    for bound, count in zip((*bounds, math.inf), counts, strict=True):
        below += count
        le = ("le", number(bound))
        found.append(Sample(float(below), (*labels, le), "_bucket"))
    found.append(Sample(total, labels, "_sum"))
    found.append(Sample(float(below), labels, "_count"))
    return found


def labels(of: Mapping[str, object]) -> Labels:
    """Return labels, each as text."""
    return tuple((name, str(value)) for name, value in of.items())


def number(value: float) -> str:
    """Return a number as the format has it.

    >>> [number(x) for x in (3.0, 0.25, float("inf"), float("-inf"), float("nan"))]
    ['3', '0.25', '+Inf', '-Inf', 'NaN']
    """
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value == int(value) else repr(value)


def _line(name: str, sample: Sample) -> str:
    told = ""
    if sample.labels:
        pairs = ",".join(f'{key}="{_escaped(of)}"' for key, of in sample.labels)
        told = f"{{{pairs}}}"
    return f"{name}{sample.suffix}{told} {number(sample.value)}"


def _escaped(value: str) -> str:
    return value.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")
