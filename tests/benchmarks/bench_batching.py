"""Embeddings of many clients, each by itself and in batches, in one run.

    python tests/benchmarks/bench_batching.py [--clients N] [--each N] [--rounds N]

The model is all-MiniLM-L6-v2 on ONNX Runtime, if its package is installed, and a tiny
random one if not.  It runs in two ways: as a class behind the ``python`` runtime, which
does one request at a time, and on the ``ort`` runtime, which puts texts together by
itself.  Each is asked directly and through a batching deployment.

Each client asks for one short text after the other.  Rounds of the four cases take
turns, so that what else the machine does falls on all; told is the median of the rounds
of the texts in a second, and percentiles over all requests.  One client alone shows
what the wait adds where there is nobody to wait for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import attrs
import trio

sys.path.insert(0, str(Path(__file__).parents[2]))

from atomr_infer.model.deployment import Deployment, OptionValue, Serving
from atomr_infer.model.embeddings import EmbedRequest
from atomr_infer.serving.application import open_serving
from atomr_infer.serving.requests.whole_calls import embed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr_infer.serving.shared import Serving as Tree

FOLDER, THREADS = "BENCH_BATCHING_FOLDER", "BENCH_BATCHING_THREADS"
CASES = ("python", "python, batched", "ort", "ort, batched")
WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "the", "dog", "run")


class OneAtATime:
    """The model as a class of one's own: a request is one run of all its texts."""

    def load(self) -> None:
        """Open the model in the child process."""
        import onnxruntime  # noqa: PLC0415
        from tokenizers import Tokenizer  # noqa: PLC0415

        from atomr_infer_ort.embedding import EmbeddingModel  # noqa: PLC0415
        from atomr_infer_ort.options import Pooling  # noqa: PLC0415

        folder = Path(os.environ[FOLDER])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = int(os.environ[THREADS])
        found = next(iter(folder.rglob("*.onnx")))
        session = onnxruntime.InferenceSession(str(found), options)
        self._model = EmbeddingModel(session, pooling=Pooling.MEAN, normalize=True)
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()  # to the longest of a run, and no further

    def embed(self, texts: Sequence[str]) -> list[list[float]]:
        """Return the vectors of a request's texts."""
        tokens = [each.ids for each in self._tokenizer.encode_batch(list(texts))]
        vectors: list[list[float]] = self._model.run(tokens).tolist()
        return vectors


@attrs.define
class Seen:
    """What was measured of a case.

    Attributes:
        per_s: texts in a second, of each round.
        took_s: of each request.
    """

    per_s: list[float] = attrs.field(factory=list)
    took_s: list[float] = attrs.field(factory=list)

    def __str__(self) -> str:
        ordered = sorted(self.took_s)
        half, most = (ordered[int(len(ordered) * q)] * 1e3 for q in (0.5, 0.99))
        per_s = statistics.median(self.per_s)
        return f"{per_s:8.0f} texts/s   p50 {half:7.1f} ms   p99 {most:7.1f} ms"


def deployments(folder: Path, threads: int) -> list[Deployment]:
    runtimes: dict[str, tuple[str, str | None, dict[str, OptionValue]]] = {
        "python": (f"python:{__file__}:OneAtATime", None, {}),
        "ort": ("ort", str(folder), {"threads": threads}),
    }
    made = []
    for name, (runtime, model, options) in runtimes.items():
        serving = Serving(max_queue=10_000, queue_timeout_s=600.0)
        made.append(
            Deployment(
                name=name, runtime=runtime, model=model, options=options,
                serving=serving,
            )
        )  # fmt: skip
        rules: dict[str, OptionValue] = {
            "model": name, "max_batch": 64, "concurrency": 2,
        }  # fmt: skip
        made.append(
            Deployment(name=f"{name}-batched", runtime="batching", options=rules)
        )
    return made


async def round_of(tree: Tree, model: str, clients: int, each: int, seen: Seen) -> None:
    async def client(number: int) -> None:
        for turn in range(each):
            length = 3 + (number + turn) % len(WORDS)
            text = f"{number} {turn} " + " ".join(WORDS[:length])
            request = EmbedRequest(
                request_id=f"{number}.{turn}", model=model, inputs=(text,)
            )
            began_at = time.perf_counter()
            await embed(tree, request)
            seen.took_s.append(time.perf_counter() - began_at)

    began_at = time.perf_counter()
    async with trio.open_nursery() as nursery:
        for number in range(clients):
            nursery.start_soon(client, number)
    seen.per_s.append(clients * each / (time.perf_counter() - began_at))


async def measure(folder: Path, arguments: argparse.Namespace) -> None:
    async with open_serving(environ=dict(os.environ)) as tree:
        for deployment in deployments(folder, arguments.threads):
            await tree.deploy(deployment)
        for clients, each in ((arguments.clients, arguments.each), (1, 8)):
            found = {case: Seen() for case in CASES}
            for turn in range(arguments.rounds + 1):
                for case, seen in found.items():
                    model = case.replace(", ", "-")
                    # The first one warms up.
                    into = seen if turn else Seen()
                    await round_of(tree, model, clients, each, into)
            print(f"{clients} clients at once:" if clients > 1 else "one client:")
            for case, seen in found.items():
                print(f"  {case:16} {seen}")


def model_folder(scratch: Path) -> tuple[str, Path]:
    from tests.plugins.ort.bert import BertShape, random_bert, write_bert  # noqa: PLC0415
    from tests.plugins.ort.real import minilm_folder  # noqa: PLC0415

    folder = minilm_folder()
    if folder is not None:
        return "all-MiniLM-L6-v2", folder
    shape = BertShape()
    return "a tiny random model", write_bert(
        scratch / "bert", shape, random_bert(shape)
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--each", type=int, default=4)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        name, folder = model_folder(Path(scratch))
        os.environ[FOLDER] = str(folder)
        os.environ[THREADS] = str(arguments.threads)
        print(f"{name}, {arguments.threads} threads of ONNX Runtime")
        trio.run(measure, folder, arguments)


if __name__ == "__main__":
    main()
