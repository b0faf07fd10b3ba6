"""Another environment's interpreter: is it one, and has it what the child needs.

Engines' pins conflict, so a deployment may name the interpreter of an environment
that its engine has for itself (``Deployment.interpreter``).  Such an environment
is made by hand and ages by itself, so it is asked before a child is started: what
is wrong with it is then said with the command that cures it, and not guessed from
a child that ended.
"""

from __future__ import annotations

import json
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import attrs
import trio

from atomr_infer._version import VERSION
from atomr_infer.bridge.system.environment import child_environment
from atomr_infer.errors import EngineStartError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

OLDEST = (3, 11)
ANSWER_S = 60.0
"""Longest wait for the answer: importing from a cold disk takes seconds."""

_MARK = "atomr-infer interpreter: "

# Old interpreters must understand it too, or they cannot say that they are old.
_QUESTION = f"""\
import json, sys
said = {{"python": list(sys.version_info[:2])}}
if sys.version_info >= {OLDEST!r}:
    try:
        from atomr_infer._version import VERSION
        said["version"] = VERSION
        from atomr_infer.bridge.child.server import load_object
        said["missing"] = list(load_object(sys.argv[1]).missing())
    except Exception as error:
        said["problem"] = str(error)
print({_MARK!r} + json.dumps(said))
"""


@attrs.frozen(kw_only=True)
class Answer:
    """What an interpreter says of itself.

    Attributes:
        python: its version.
        version: its atomr-infer's; None: it has none.
        missing: the packages that the runtime needs and that it does not have.
        problem: why the runtime's plugin cannot be imported there.
    """

    python: tuple[int, int]
    version: str | None = None
    missing: tuple[str, ...] = ()
    problem: str | None = None


async def check_interpreter(
    python: str, plugin_ref: str, runtime: str, own: Mapping[str, str] | None = None
) -> None:
    """Ask an interpreter whether it can run a runtime's child.

    Args:
        python: its path.
        plugin_ref: the plugin object, or another one that knows what is ``missing``,
            as ``module:attribute``.
        runtime: what a deployment calls the plugin.
        own: the environment variables that the deployment says.

    Raises:
        EngineStartError: it cannot; says why, and what to run.

    Cancellation: the process is killed.
    """
    command = [python, "-c", _QUESTION, plugin_ref]
    try:
        with trio.fail_after(ANSWER_S):
            ran = await trio.run_process(
                command,
                capture_stdout=True,
                stderr=subprocess.STDOUT,
                check=False,
                # As -P, which an old interpreter does not know.
                env={**child_environment(python, own=own or {}), "PYTHONSAFEPATH": "1"},
            )
    except OSError as error:
        raise EngineStartError(
            f"the interpreter {python!r} cannot be started: {error}"
        ) from error
    except trio.TooSlowError as error:
        raise EngineStartError(
            f"the interpreter {python!r} did not answer in {ANSWER_S:g} s"
        ) from error
    output = ran.stdout.decode(errors="replace")
    problem = what_is_wrong(read_answer(output), output, python, runtime)
    if problem is not None:
        raise EngineStartError(f"the interpreter {python!r} {problem}")


def read_answer(output: str) -> Answer | None:
    """Return what an interpreter said; None: it did not answer.

    >>> read_answer(_MARK + '{"python": [3, 9]}')
    Answer(python=(3, 9), version=None, missing=(), problem=None)
    """
    for line in output.splitlines():
        if line.startswith(_MARK):
            said: dict[str, Any] = json.loads(line.removeprefix(_MARK))
            return Answer(
                python=(said["python"][0], said["python"][1]),
                version=said.get("version"),
                missing=tuple(said.get("missing", ())),
                problem=said.get("problem"),
            )
    return None


def what_is_wrong(
    answer: Answer | None, output: str, python: str, runtime: str
) -> str | None:
    """Return why an interpreter cannot run a runtime's child; None: it can.

    Args:
        answer: what it said of itself.
        output: all that it printed.
        python: its path.
        runtime: what a deployment calls the plugin.

    >>> what_is_wrong(Answer(python=(3, 9)), "", "/old/python", "vllm")
    'is Python 3.9; 3.11 or newer is needed'
    """
    if answer is None:
        last = output.strip().splitlines()[-1:] or ["(nothing)"]
        return f"is no Python, or a broken one; it said: {last[0]}"
    if answer.python < OLDEST:
        have, need = (".".join(map(str, v)) for v in (answer.python, OLDEST))
        return f"is Python {have}; {need} or newer is needed"
    install = _install(python, (f"atomr-infer[{runtime}]=={VERSION}",))
    if answer.version is None:
        return f"has no atomr-infer; run: {install}"
    if answer.version != VERSION:
        mine = f"this is {VERSION}"
        return f"has atomr-infer {answer.version}, and {mine}; run: {install}"
    return _what_is_missing(answer, python, runtime)


def _what_is_missing(answer: Answer, python: str, runtime: str) -> str | None:
    if answer.missing:
        lacks = ", ".join(answer.missing)
        return f"lacks {lacks}; run: {_install(python, answer.missing)}"
    if answer.problem is not None:
        return f"cannot import the runtime {runtime!r}: {answer.problem}"
    return None


def _install(python: str, packages: Sequence[str]) -> str:
    return shlex.join([python, "-m", "pip", "install", *packages])
