"""What a node's file says of deployments goes into the catalogue, as far as it is new.

Each node has a file of its own, and nobody knows whose is the first: what another
file says stays, and what all have gone on from is not undone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr_infer.config.deployment_table import deployment_table
from atomr_infer.serving.placing.records import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from atomr_infer.model.deployment import Deployment
    from atomr_infer.serving.placing.catalogue import Catalogue
    from atomr_infer.serving.placing.picture import Picture

    Swaps = Callable[[Deployment, Deployment], str]


def at_once(_now: Deployment, _wanted: Deployment) -> str:
    """Return that nobody takes a deployment over step by step."""
    return ""


def put_file(
    catalogue: Catalogue,
    picture: Picture,
    wanted: Mapping[str, Deployment],
    *,
    is_remote: Callable[[Deployment, Picture], bool],
    swaps: Swaps,
) -> tuple[str, ...]:
    """Have the deployments of a node's file served, and no more those of before.

    Args:
        catalogue: where they are put.
        picture: what is known.
        wanted: what the file says, by name.
        is_remote: whether a deployment's runtime asks a provider.
        swaps: called with what is served and what is to be; returns what becomes of
            it where it is not put at once, and "" where it is.

    Returns:
        What was done or left, one sentence for each deployment that is concerned.
    """

    def put(deployment: Deployment) -> str:
        name, table = deployment.name, deployment_table(deployment)
        digest, known = digest_of(table), picture.catalogue.get(deployment.name)
        if not catalogue.declare(name, digest):
            entry = catalogue.entry(name)
            if entry is None or entry.digest == digest:
                return ""
            return (
                f"{name} stays as revision {entry.revision} has it, from {entry.by}: "
                "what this node's file says is older"
            )
        if known is not None and known.deployment is not None:
            told = (
                ""
                if known.entry.digest == digest
                else swaps(known.deployment, deployment)
            )
            if told:
                return told
        entry = catalogue.put(table, remote=is_remote(deployment, picture))
        what = "is deployed" if known is None else "is changed"
        return "" if entry is None else f"{name} {what}, as revision {entry.revision}"

    def leave_out() -> Iterator[str]:
        for name in sorted(catalogue.my_declared() - wanted.keys()):
            if catalogue.undeclare(name) and catalogue.remove(name):
                yield f"{name} is removed"
            else:
                yield f"{name} stays: it stands in another node's file"

    told = (*map(put, wanted.values()), *leave_out())
    return tuple(line for line in told if line)
