"""Classifiers: the probability of each label of a text."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atomr_infer.errors import EngineStartError
from atomr_infer.model.capabilities import Feature
from atomr_infer_ort.ranking import KNOWN, padded, positions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer_ort.session import Session

Array = np.ndarray[Any, np.dtype[Any]]

_MULTI_LABEL = "multi_label_classification"


class ClassifyingModel:
    """A classifier: it reads a text, and says a number for each label.

    Args:
        session: the model.
        config: ``config.json``: its ``id2label`` names the labels, and its
            ``problem_type`` says whether a text has one of them or several.

    Attributes:
        labels: their names, in the order of the numbers.

    Raises:
        EngineStartError: it has inputs that are not known, or other numbers than
            labels.
    """

    feature = Feature.CLASSIFY

    def __init__(self, session: Session, config: Mapping[str, Any]) -> None:
        self._session = session
        self._inputs = {one.name for one in session.get_inputs()}
        [shape] = [one.shape for one in session.get_outputs() if one.name == "logits"]
        if not {"input_ids"} <= self._inputs <= KNOWN:
            raise EngineStartError(
                "the model classifies, but not texts: its inputs are "
                f"{', '.join(sorted(self._inputs))}"
            )
        self.labels = labels_of(config, shape[-1])
        self._several = config.get("problem_type") == _MULTI_LABEL

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return the probability of each label, for each text given as tokens.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        ids, mask = padded(texts)
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": np.zeros_like(ids),
            "position_ids": positions(ids),
        }
        feeds = {name: feeds[name] for name in feeds if name in self._inputs}
        [logits] = self._session.run(["logits"], feeds)
        logits = logits.astype(np.float64)
        if self._several:
            apart: Array = 1 / (1 + np.exp(-logits))
            return apart
        powers = np.exp(logits - logits.max(axis=1, keepdims=True))
        together: Array = powers / powers.sum(axis=1, keepdims=True)
        return together


def labels_of(config: Mapping[str, Any], count: int | str | None) -> tuple[str, ...]:
    """Return the names of a classifier's labels.

    Args:
        config: ``config.json``.
        count: how many numbers the model says; a name or None: it does not tell.

    Raises:
        EngineStartError: the two disagree, or neither tells.

    >>> labels_of({"id2label": {"1": "bad", "0": "good"}}, 2)
    ('good', 'bad')
    >>> labels_of({}, 3)
    ('LABEL_0', 'LABEL_1', 'LABEL_2')
    """
    told = config.get("id2label")
    named = {str(key): str(name) for key, name in (told or {}).items()}
    known = count if isinstance(count, int) else len(named)
    names = tuple(named.get(str(at), f"LABEL_{at}") for at in range(known))
    if not names or (named and len(named) != known):
        raise EngineStartError(
            f"the model says {count} numbers of a text, and its config.json names "
            f"{len(named)} labels"
        )
    return names
