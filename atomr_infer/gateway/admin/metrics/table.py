"""Families that are filled from several places, one sample at a time."""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.wire.prometheus import Family, Sample, Type, histogram, labels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.serving.requests.meters import Histogram

PREFIX = "atomr_infer_"


class Table:
    """Families by name, in the order in which they were first told of.

    Each sample is of a node, and says so first.
    """

    def __init__(self, node: str) -> None:
        self._node = node
        self._types: dict[str, tuple[Type, str]] = {}
        self._samples: dict[str, list[Sample]] = {}

    def families(self) -> Sequence[Family]:
        """Return what was put in."""
        return [
            Family(name, type_, help_, self._samples[name])
            for name, (type_, help_) in self._types.items()
        ]

    def count(self, name: str, help_: str, value: float, **of: object) -> None:
        """Put in a number that only grows; its name gets ``_total``."""
        self._put(f"{PREFIX}{name}_total", Type.COUNTER, help_, value, of)

    def gauge(self, name: str, help_: str, value: float, **of: object) -> None:
        """Put in a number that goes up and down."""
        self._put(f"{PREFIX}{name}", Type.GAUGE, help_, value, of)

    def plain(
        self, name: str, help_: str, value: float, *, type_: Type = Type.GAUGE
    ) -> None:
        """Put in a number under a name that all programs have for it."""
        self._put(name, type_, help_, value, {})

    def histogram(self, name: str, help_: str, of: Histogram, deployment: str) -> None:
        """Put in how a deployment's numbers are spread."""
        which = labels({"node": self._node, "deployment": deployment})
        found = histogram(of.bounds, of.counts, of.total, which)
        self._of(f"{PREFIX}{name}", Type.HISTOGRAM, help_).extend(found)

    def _put(
        self, name: str, type_: Type, help_: str, value: float, of: dict[str, object]
    ) -> None:
        sample = Sample(value, labels({"node": self._node, **of}))
        self._of(name, type_, help_).append(sample)

    def _of(self, name: str, type_: Type, help_: str) -> list[Sample]:
        self._types.setdefault(name, (type_, help_))
        return self._samples.setdefault(name, [])
