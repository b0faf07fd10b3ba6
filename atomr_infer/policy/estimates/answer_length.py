"""How long an answer may be to a request that does not say.

A limit or a budget sets the longest answer aside, so a deployment may say how long one
is, and then that is what its upstream is asked for.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.model.deployment import Deployment


def bounded(batch: ExecuteBatch, deployment: Deployment) -> ExecuteBatch:
    """Return a request as a deployment is asked for it.

    What only the client's own bytes can say stays as it is: nothing can be added to
    them.
    """
    most = deployment.default_max_tokens
    if most is None or batch.sampling.max_tokens is not None or batch.only_passed:
        return batch
    sampling = attrs.evolve(batch.sampling, max_tokens=most)
    # The client's bytes lack it, so they are not passed on.
    return attrs.evolve(batch, sampling=sampling, source=None)
