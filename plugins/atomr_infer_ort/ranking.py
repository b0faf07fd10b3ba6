"""Cross-encoders: how well a text answers a query, as one number."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from atomr_infer.errors import EngineStartError
from atomr_infer.model.capabilities import Feature

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer_ort.session import Session

Array = np.ndarray[Any, np.dtype[Any]]

KNOWN = {"input_ids", "attention_mask", "token_type_ids", "position_ids"}
"""The inputs of an encoder."""


class RankingModel:
    """A cross-encoder: it reads a query and a text together, and says one number.

    Raises:
        EngineStartError: it says more than one, or has inputs that are not known.
    """

    feature = Feature.RERANK
    labels: tuple[str, ...] = ()

    def __init__(self, session: Session) -> None:
        self._session = session
        self._inputs = {one.name for one in session.get_inputs()}
        [shape] = [one.shape for one in session.get_outputs() if one.name == "logits"]
        if shape[-1] != 1 or not {"input_ids"} <= self._inputs <= KNOWN:
            raise EngineStartError(
                f"the model says {shape[-1]} numbers of a text, from the inputs "
                f"{', '.join(sorted(self._inputs))}; one that ranks says one"
            )

    def run(self, texts: Sequence[Sequence[int]]) -> Array:
        """Return a number from 0 to 1 for each pair, given as tokens.

        Raises:
            Exception: as ONNX Runtime raises it.
        """
        ids, mask = padded(texts)
        feeds = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": _second(texts, ids),
            "position_ids": positions(ids),
        }
        feeds = {name: feeds[name] for name in feeds if name in self._inputs}
        [logits] = self._session.run(["logits"], feeds)
        scores: Array = 1 / (1 + np.exp(-logits.astype(np.float64)))
        return scores


def _second(texts: Sequence[Sequence[int]], ids: Array) -> Array:
    """Return 1 for what belongs to the second text: it is behind the first mark."""
    kinds = np.zeros_like(ids)
    for row, tokens in enumerate(texts):
        first = list(tokens).index(tokens[-1])  # both texts end with the same one
        kinds[row, first + 1 : len(tokens)] = 1
    return kinds


def positions(ids: Array) -> Array:
    """Return where each token stands."""
    columns = np.broadcast_to(np.arange(ids.shape[1], dtype=np.int64), ids.shape)
    return np.ascontiguousarray(columns)


def padded(texts: Sequence[Sequence[int]]) -> tuple[Array, Array]:
    """Return tokens as a matrix, and 1 where there is one."""
    ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
    mask = np.zeros_like(ids)
    for row, tokens in enumerate(texts):
        ids[row, : len(tokens)] = tokens
        mask[row, : len(tokens)] = 1
    return ids, mask
