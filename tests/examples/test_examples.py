"""Each example runs as a user runs it, and prints what it promises."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import trio

from atomr_infer.config.load import load_config, parse_config
from atomr_infer.config.validate import validate_deployments
from atomr_infer.model.deployment import Timeouts
from atomr_infer.model.secret import EnvSecret
from tests import forks

EXAMPLES = Path(__file__).parents[2] / "examples"

WITH_THE_MOCK = {
    "embed_trio.py": """\
chat: Name three colours.
stream:|Count| to| five.||
serving tiny at http://127.0.0.1:PORT
closed
""",
    "embed_blocking.py": """\
chat: What does a cat say?
chat: What does a dog say?
stream:|Tell| me| a| long
running: 0
""",
    "openai_sdk.py": """\
models: ['tiny']
chat: Name three colours.
stream:||Count| to| five.|
error 404: model_not_found, model
""",
    "own_model.py": """\
chat: 'Who is there? Who is there? '
stream:|Say |this. |Say |
""",
    "actors.py": """\
1. Who is there?
2. And who else?
['Who is there?', 'And who else?']
["Who is there?","And who else?","Hm."]
[4.0, 9.0]
""",
    "tensors.py": """\
[0.622, 0.269]
quick
'x' is FP32 [2]; the model takes 'x' FP32 [-1, 3]
""",
    "cascade.py": """\
  small (mock): accepted, $0.000001
  together: $0.0000010
Say hello. -> Say hello.
  small (mock): refused: matches, $0.0000025
  large (openai): completed, $0.00005
  together: $0.0000525
What is 17 times 23? -> 17 times 23 is 391.
  small (mock): refused: matches, $0.000002
  large (openai): failed, $0
  together: $0.0000020
And 17 times 24? -> And 17 times 24?
""",
    "batching.py": """\
vectors: 40 requests, 158 tokens, $0.00000316
batched: 4 requests, 158 tokens, $0.00000316
one of them: batch of 10
""",
    "cache.py": """\
at once:
  asked, $0.0000020
  joined, $0.0000000
  joined, $0.0000000
  joined, $0.0000000
  joined, $0.0000000
later:
  hit, $0.0000000
  asked, $0.0000020
{'Name three rivers, please.'}
""",
    "router.py": """\
  coder: completed
What does `def f(): return f` do? -> It returns itself.
  lawyer: completed
May my neighbour cut my hedge? -> That depends on the hedge.
  painter: failed, general: completed
Who painted the Night Watch? -> Rembrandt, I think.
""",
    "pool.py": """\
12 answers, 3 requests to the east: Counter({'Hello!': 12})
after its rest: Counter({'Hello!': 4, 'Hello from the fake upstream.': 2})
""",
    "hybrid_agent.py": """\
  router (mock): router: plan
  first (openai): planned, $0.000078
  executor (mock): completed
Plan a trip to Rome. -> Go by train, then walk.
  router (mock): router: plan
  first (openai): no plan: upstream, $0
  second (openai): planned, $0.000078
  executor (mock): completed
Plan a trip to Oslo. -> Go by train, then walk.
""",
    "tiers.py": """\
  premium: completed
up to 50 tokens: says premium
  premium: passed over: it may cost $0.00807
  standard: completed
up to 400 tokens: says standard
  premium: passed over: it may cost $0.08007
  standard: passed over: it may cost $0.016014
  cheap: completed
up to 4000 tokens: says cheap
""",
    "fair_share.py": """\
in Ann's line: [40, 0, 0]
by turns: [1, 1, 1]
""",
    "hot_swap.py": """\
swapped; clients heard ['first', 'second']
rolled back; clients heard ['second']
now: second
""",
    "speculative.py": """\
give the directories of a model and of its draft
""",
    "answer_file.py": """\
cut off: 6 asked, 5 lines
gone on: 6 asked; AnswerCounts(answered=4, failed=2, before=4)
What is grey?
{'q2': 'invalid_request', 'q7': 'invalid_request'}
""",
    "remote_only_demo.py": """\
happy path: 'Hello.'; the upstream was asked 1 time
429, then success: 'Hello after a while.'; the upstream was asked 2 times
Retry-After was waited for: True
503 twice: upstream; the upstream was asked 2 times
503 once more: circuit_open; the upstream was asked 1 time
circuit open: circuit_open; the upstream was asked 0 times
after its rest: 'Hello from the fake upstream.'; the upstream was asked 1 time
""",
    "chat_room.py": """\
ann heard ()
bob heard ('ann: hello',)
cyd heard ('ann: hello', 'bob: hello, ann')
bob fell over: bob was asked to say nothing
in the kitchen: 3
bob heard ()
""",
    "kv_store.py": """\
ann: CREATE shopping -> OK
ann: PUT shopping milk 1 litre -> OK
bob: GET shopping milk -> 1 litre OK
bob: DELETE shopping milk -> OK
ann: GET shopping milk -> NOT FOUND
bob: FETCH shopping milk -> UNKNOWN COMMAND
ann: CREATE books -> OK
ann: PUT books title Emma -> OK
ann: PUT shopping eggs 12 -> OK
the shopping bucket has crashed
ann: GET shopping eggs -> NOT FOUND
bob: CREATE shopping -> OK
bob: PUT shopping eggs 6 -> OK
ann: GET shopping eggs -> 6 OK
ann: GET books title -> Emma OK
stopped
""",
    "rate_limited_crawler.py": """\
one/: links: 3
one/a: links: 2
one/b: links: 2 at try 2
one/broken: lost: IndexError('list index out of range')
one/busy: busy 3 times
one/missing: status 404
two/: links: 9
two/0: links: 1
two/1: links: 1
two/2: links: 1
two/3: links: 1 at try 3
two/4: links: 1
two/5: links: 1
two/6: links: 1
two/7: links: 1
two/8: links: 1
one was politely asked 9 times
two was politely asked 12 times
""",
    "resource_pool.py": """\
ann: SELECT on connection 1
bob: SELECT on connection 2
Status(free=0, lent=2, waiting=0)
cyd: none was free within 0.05 s
dan: SELECT on connection 1
eve: INSERT on connection 2, and gone
Status(free=2, lent=0, waiting=0)
fay: connection 1 was reset
fay has A on connection 2 B on connection 1
Status(free=2, lent=0, waiting=0)
""",
    "counter_server.py": """\
total: 6.0
total: 2.0
crash: ZeroDivisionError('float division by zero')
total: 1.0
Counter restarts: 1
""",
}


WITHOUT_A_MODEL = {
    "actors.py",
    "answer_file.py",
    "batching.py",
    "cache.py",
    "cascade.py",
    "chat_room.py",
    "counter_server.py",
    "fair_share.py",
    "hot_swap.py",
    "hybrid_agent.py",
    "kv_store.py",
    "own_model.py",
    "pool.py",
    "rate_limited_crawler.py",
    "remote_only_demo.py",
    "resource_pool.py",
    "router.py",
    "speculative.py",
    "tensors.py",
    "tiers.py",
}


def run(name: str, *arguments: str) -> tuple[str, str]:
    """Run an example somewhere else than here; return what it printed and logged."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    assert done.returncode == 0, done.stderr
    return re.sub(r":\d{4,5}\b", ":PORT", done.stdout), done.stderr


async def run_forked(name: str) -> tuple[str, str]:
    """Run an example in a process that need not import what it does."""
    read: list[bytes] = [b"", b""]
    process = await forks.start([], env=os.environ, script=str(EXAMPLES / name))

    async def follow(number: int, stream: trio.abc.ReceiveStream) -> None:
        async with stream:
            async for piece in stream:
                read[number] += piece

    try:
        with trio.fail_after(300):
            async with trio.open_nursery() as nursery:
                for number, stream in enumerate((process.stdout, process.stderr)):
                    nursery.start_soon(follow, number, stream)
            status = await process.wait()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
    printed, logged = (each.decode() for each in read)
    assert status == 0, logged
    return re.sub(r":\d{4,5}\b", ":PORT", printed), logged


def test_every_example_is_run_here() -> None:
    scripts = {path.name for path in EXAMPLES.glob("*.py")}

    assert scripts == WITH_THE_MOCK.keys()


@pytest.mark.parametrize("name", WITH_THE_MOCK)
async def test_an_example_prints_what_it_promises(name: str) -> None:
    printed, _ = await run_forked(name)

    assert printed == WITH_THE_MOCK[name]


@pytest.mark.slow
@pytest.mark.parametrize("name", WITH_THE_MOCK)
def test_an_example_imports_what_it_uses(name: str) -> None:
    printed, _ = run(name)

    assert printed == WITH_THE_MOCK[name]


async def test_the_crash_of_the_counter_is_in_the_log() -> None:
    _, logged = await run_forked("counter_server.py")

    assert re.search(r"atomr ERROR: process <Pid \d+ Counter> crashed", logged)
    assert "Divide(by=0)" in logged


@pytest.mark.slow
@pytest.mark.engine
@pytest.mark.parametrize("name", sorted(WITH_THE_MOCK.keys() - WITHOUT_A_MODEL))
def test_an_example_answers_with_a_real_model(name: str) -> None:
    printed, _ = run(name, "--model")

    assert re.search(r"^chat: \S", printed, re.MULTILINE)
    assert re.search(r"^stream:.*\|\S", printed, re.MULTILINE)


def test_the_configuration_is_accepted_by_every_runtime() -> None:
    config = load_config(EXAMPLES / "atomr.toml")
    validate_deployments(config.deployments, origin=config.origin)

    echo, local = config.deployments
    assert config.gateway.bind == "127.0.0.1:8080"
    assert (echo.runtime, echo.serves) == ("mock", ("echo",))
    assert (local.runtime, local.serves) == ("mistralrs", ("local", "smollm2"))
    assert local.timeouts == Timeouts(load_s=300, first_token_s=300, idle_s=120)


def test_the_upstream_in_the_configuration_works_once_its_signs_are_taken_away() -> (
    None
):
    text = (EXAMPLES / "atomr.toml").read_text()
    before, mark, after = text.partition("take the comment signs away:\n")
    lines = [line.removeprefix("# ") for line in after.splitlines()]
    config = parse_config(before + mark + "\n".join(lines), "atomr.toml")
    validate_deployments(config.deployments, origin=config.origin)

    upstream = config.deployments[-1]
    assert upstream.credential == EnvSecret("UPSTREAM_API_KEY")
    assert upstream.options == {"endpoint": "https://models.example.com/v1"}
