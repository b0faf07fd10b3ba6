"""A session whose inputs and outputs have other names than the engine uses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import attrs

if TYPE_CHECKING:
    from atomr_infer_ort.genai import Names
    from atomr_infer_ort.session import Session


@attrs.frozen
class _Told:
    """An input or output under another name."""

    name: str
    type: str
    shape: Sequence[Any]


def renamed(session: Session, names: Names | None) -> Session:
    """Return a session under the engine's names; None: it has them."""
    if names is None:
        return session
    theirs = names.ours(
        [one.name for one in session.get_inputs()],
        [one.name for one in session.get_outputs()],
    )
    if all(ours == own for ours, own in theirs.items()):
        return session
    return _RenamedSession(session, theirs)


class _RenamedSession:
    """Passes everything on, names translated.

    Args:
        session: the model.
        theirs: its own names, by the engine's.
    """

    def __init__(self, session: Session, theirs: dict[str, str]) -> None:
        self._session = session
        self._theirs = theirs
        self._ours = {own: name for name, own in theirs.items()}

    def get_inputs(self) -> list[Any]:
        """Return names, types and shapes."""
        return [self._told(one) for one in self._session.get_inputs()]

    def get_outputs(self) -> list[Any]:
        """Return names, types and shapes."""
        return [self._told(one) for one in self._session.get_outputs()]

    def get_providers(self) -> list[str]:
        """Return the providers that are used."""
        return self._session.get_providers()

    def run(self, outputs: list[str], feeds: dict[str, Any]) -> list[Any]:
        """Compute, arrays in and out."""
        named = {self._theirs[name]: value for name, value in feeds.items()}
        return self._session.run([self._theirs[name] for name in outputs], named)

    def io_binding(self) -> _RenamedBinding:
        """Return what inputs and outputs are bound to."""
        return _RenamedBinding(self._session.io_binding(), self._theirs)

    def run_with_iobinding(self, binding: _RenamedBinding) -> None:
        """Compute what is bound."""
        self._session.run_with_iobinding(binding.bound)

    def _told(self, one: Any) -> _Told:  # noqa: ANN401  the library has no types
        return _Told(self._ours[one.name], one.type, one.shape)


class _RenamedBinding:
    """What a run is given and where its outputs go, names translated."""

    def __init__(self, bound: Any, theirs: dict[str, str]) -> None:  # noqa: ANN401  the library has no types
        self.bound = bound
        self._theirs = theirs

    def bind_cpu_input(self, name: str, value: Any) -> None:  # noqa: ANN401  as above
        """Give an array."""
        self.bound.bind_cpu_input(self._theirs[name], value)

    def bind_ortvalue_input(self, name: str, value: Any) -> None:  # noqa: ANN401  as above
        """Give what a run made."""
        self.bound.bind_ortvalue_input(self._theirs[name], value)

    def bind_output(self, name: str, device: str, device_id: int = 0) -> None:
        """Say where an output shall be."""
        self.bound.bind_output(self._theirs[name], device, device_id)

    def get_outputs(self) -> list[Any]:
        """Return what was made, in the order of binding."""
        found: list[Any] = self.bound.get_outputs()
        return found
