"""Figures of a gateway, as Prometheus' own parser reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client.parser import text_string_to_metric_families

if TYPE_CHECKING:
    from collections.abc import Mapping

Labels = tuple[tuple[str, str], ...]


class Figures:
    """All samples of a text.

    Attributes:
        types: of each family.
    """

    def __init__(self, text: bytes) -> None:
        self.types: dict[str, str] = {}
        self._samples: dict[str, dict[Labels, float]] = {}
        for family in text_string_to_metric_families(text.decode()):
            assert family.name not in self.types, "a family stands in one piece"
            self.types[family.name] = family.type
            for sample in family.samples:
                of = self._samples.setdefault(sample.name, {})
                labels = tuple(sorted(sample.labels.items()))
                assert labels not in of, "each series is there once"
                of[labels] = sample.value

    def of(self, name: str, *by: str, **which: str) -> Mapping[tuple[str, ...], float]:
        """Return a name's numbers by some labels, of those with others."""
        found = {}
        for pairs, value in self._samples.get(name, {}).items():
            labels = dict(pairs)
            if all(labels.get(key) == text for key, text in which.items()):
                found[tuple(labels[label] for label in by)] = value
        return found

    def one(self, name: str, **which: str) -> float:
        """Return the only number of a name with these labels."""
        [value] = self.of(name, "node", **which).values()
        return value

    def labels(self, name: str) -> set[str]:
        """Return which labels a name's numbers have."""
        return {key for pairs in self._samples[name] for key, _ in pairs}

    def names(self) -> set[str]:
        """Return the families' names as they are written."""
        counts = {"counter": "_total"}
        return {name + counts.get(of, "") for name, of in self.types.items()}

    @property
    def text(self) -> str:
        """All labels' values, to look for what must not be there."""
        return repr(self._samples)
