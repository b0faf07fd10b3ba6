"""What a node's file says of deployments goes into the catalogue, as far as it is new.

Each node has a file of its own, and nobody knows whose is the first: what another
file says stays, and what all have gone on from is not undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.serving.placing.records import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.placing.catalogue import Catalogue
    from atomr_infer.serving.placing.picture import Picture


class Swaps(Protocol):
    """Has deployments take over step by step."""

    def take(
        self, now: Deployment, wanted: Deployment, *, before: str, is_client: bool
    ) -> str:
        """Take what a file says anew.

        Args:
            now: what is served.
            wanted: what is to be.
            before: the digest of what the file said before; "": nothing.
            is_client: whether the engine is a client in its node's process.

        Returns:
            What becomes of it where it is not put at once, and "" where it is.
        """

    def tell(self, name: str, digest: str) -> str:
        """Return what has become of what a file has said for long, and is not served.

        "": it does not take over step by step.
        """


class AtOnce:
    """Nobody takes a deployment over step by step."""

    def take(
        self, now: Deployment, wanted: Deployment, *, before: str, is_client: bool
    ) -> str:
        """Return that it is put at once."""
        del now, wanted, before, is_client
        return ""

    def tell(self, name: str, digest: str) -> str:
        """Return that nothing becomes of it."""
        del name, digest
        return ""


class OwnFile:
    """Where what a node's file says is put."""

    def __init__(
        self,
        catalogue: Catalogue,
        picture: Picture,
        *,
        is_remote: Callable[[Deployment, Picture], bool],
        is_client: Callable[[Deployment], bool],
        swaps: Swaps,
        at_start: bool = False,
    ) -> None:
        """Put it into a catalogue.

        Args:
            catalogue: which has it then.
            picture: what is known.
            is_remote: whether a deployment's runtime asks a provider.
            is_client: whether its engine is a client in its node's process.
            swaps: those that take over step by step.
            at_start: whether the node has just started: its file may be an old one.
        """
        self._catalogue = catalogue
        self._picture = picture
        self._is_remote = is_remote
        self._is_client = is_client
        self._swaps = swaps
        self._at_start = at_start

    def put(self, wanted: Mapping[str, Deployment]) -> tuple[str, ...]:
        """Have the deployments of the file served, and no more those of before.

        Args:
            wanted: what the file says, by name.

        Returns:
            What was done or left, one sentence for each deployment that is concerned.
        """
        told = (*map(self._put, wanted.values()), *self._leave_out(wanted))
        return tuple(line for line in told if line)

    def _put(self, deployment: Deployment) -> str:
        name, table = deployment.name, deployment_table(deployment)
        known = self._picture.catalogue.get(name)
        if not self._catalogue.declare(name, digest_of(table)):
            return self._stays(name, digest_of(table))
        if known is not None and known.deployment is not None:
            told = self._swaps.take(
                known.deployment,
                deployment,
                before=self._picture.declared.get(name, {}).get(self._picture.me, ""),
                is_client=self._is_client(deployment),
            )
            if told:
                return told
        remote = self._is_remote(deployment, self._picture)
        entry = self._catalogue.put(table, remote=remote, at_start=self._at_start)
        what = "is deployed" if known is None else "is changed"
        return "" if entry is None else f"{name} {what}, as revision {entry.revision}"

    def _stays(self, name: str, digest: str) -> str:
        """Return why what the file has said for long, or once, is not put."""
        entry = self._catalogue.entry(name)
        if entry is None or entry.digest == digest:
            return ""
        return self._swaps.tell(name, digest) or (
            f"{name} stays as revision {entry.revision} has it, from {entry.by}: "
            "what this node's file says is older"
        )

    def _leave_out(self, wanted: Mapping[str, Deployment]) -> Iterator[str]:
        for name in sorted(self._catalogue.my_declared() - wanted.keys()):
            if self._catalogue.undeclare(name) and self._catalogue.remove(name):
                yield f"{name} is removed"
            else:
                yield f"{name} stays: it stands in another node's file"
