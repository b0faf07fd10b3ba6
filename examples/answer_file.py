"""A file of questions to a file of answers: stopped in the middle, and gone on with.

Three requests are under way at once.  After four answers the program is cut off; the
second run asks for the rest only, and once more for what had failed::

    python examples/answer_file.py
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from atomr.flow import Retry
from atomr_infer.cluster import Cluster
from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.deployment import Deployment
from atomr_infer.pipeline.flows.answer_file import answer_file

if TYPE_CHECKING:
    from atomr_infer.pipeline.flows.answer_file import Question

TEXTS = ["What is red?", "What is blue?", "", "What is green?", "What is grey?"]


def write_questions(path: Path) -> None:
    """Write ten questions, two of which are empty."""
    lines = [
        json.dumps({"id": f"q{number}", "text": text})
        for number, text in enumerate(TEXTS * 2)
    ]
    path.write_text("\n".join(lines) + "\n")


async def main(folder: Path) -> None:
    """Answer the questions in two runs."""
    questions, answers = folder / "questions.jsonl", folder / "answers.jsonl"
    write_questions(questions)
    stop = trio.CancelScope()
    asked = 0

    async def ask(question: Question) -> str:
        nonlocal asked
        asked += 1
        if asked == 6:
            stop.cancel()  # as ctrl-c would
        if not question["text"]:
            raise InvalidRequestError("there is no question")
        return (await cluster.chat("small", question["text"])).text

    once = Retry(attempts=1)
    async with Cluster.connect("inproc://app") as cluster:
        await cluster.deploy(Deployment(name="small", runtime="mock"))
        with stop:
            await answer_file(questions, answers, ask, concurrency=1, retry=once)
        print(f"cut off: {asked} asked, {len(answers.read_text().splitlines())} lines")
        asked = 100
        counts = await answer_file(questions, answers, ask, concurrency=3, retry=once)
        print(f"gone on: {asked - 100} asked; {counts}")
    told = [json.loads(line) for line in answers.read_text().splitlines()]
    print({each["id"]: each["answer"] for each in told if "answer" in each}["q9"])
    print({each["id"]: each["error"]["kind"] for each in told if "error" in each})


with tempfile.TemporaryDirectory() as made:
    trio.run(main, Path(made))
