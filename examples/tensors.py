"""A model of tensors, asked by a program and by an actor.

It needs ONNX Runtime: ``pip install 'atomr-infer[ort]'``.  A model is any ``.onnx``
file that takes arrays: a classifier of scikit-learn's, an export of PyTorch's::

    python examples/tensors.py
"""

from __future__ import annotations

import base64
import tempfile
from array import array
from pathlib import Path

import trio

from atomr_infer.actors import Context, ask, deployment_of, inference_actor
from atomr_infer.cluster import Cluster
from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.tensors import Datatype, Tensor

# score = sigmoid(x @ [0.5, -1, 2]): "x" is FP32 [n, 3], and "score" FP32 [n, 1].
MODEL = base64.b64decode(
    "CAgSADp0ChEKAXgKAXcSAXMiBk1hdE11bAoTCgFzEgVzY29yZSIHU2lnbW9pZBIBZyoXCAMIARABQgF3"
    "SgwAAAA/AACAvwAAAEBaFAoBeBIPCg0IARIJCgMSAW4KAggDYhgKBXNjb3JlEg8KDQgBEgkKAxIBbgoC"
    "CAFCBAoAEA0="
)


def rows(values: list[list[float]]) -> Tensor:
    """Return rows of three numbers as the model takes them."""
    flat = array("f", [number for row in values for number in row])
    return Tensor("x", Datatype.FP32, (len(values), 3), flat.tobytes())


@inference_actor(asks=("scores",))
async def best(ctx: Context, offers: dict[str, list[float]]) -> str:
    """Return the offer that the model likes most."""
    found = await ctx.lookup("scores").infer(rows([*offers.values()]))
    scores = found.output("score").values()
    return max(zip(scores, offers, strict=True))[1]


async def main(folder: str) -> None:
    """Deploy the model and the actor, and ask them."""
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="scores", runtime="ort", model=folder))
        await cluster.deploy(deployment_of(best, "best"))

        found = await cluster.infer("scores", rows([[1, 0, 0], [0, 1, 0]]))
        print([round(score, 3) for score in found.output("score").values()])
        offers = {"cheap": [2.0, 1.0, 0.0], "quick": [0.0, 1.0, 1.0]}
        print(await ask(cluster.lookup("best", best), offers))
        try:
            await cluster.infer("scores", Tensor.of("x", array("f", [1.0, 2.0])))
        except InvalidRequestError as error:
            print(error)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "model.onnx").write_bytes(MODEL)
        trio.run(main, folder)
