"""The engine against a slow model that is written from the documentation.

The model keeps *one* line of events.  A postponed event stays where it is, with
a mark; a change of state takes the marks away; the next event is the first
without one; and what is inserted goes where the event in work was.  The engine
has queues instead, and neither knows the other.
"""

from __future__ import annotations

from math import inf
from typing import Any

import attrs
from hypothesis import example, given, settings
from hypothesis import strategies as st

from atomr.core.state_engine import Engine, RunningTimeout
from atomr.core.state_events import (
    Enter,
    EventTimeout,
    Info,
    Insert,
    Internal,
    Postpone,
    SetTimeout,
    StateTimeout,
    Timeout,
)

STATES = ("s0", "s1", "s2")
LABELS = ("a", "b", "c")
KINDS = ("state", "event", "x", "y")
FUEL = 60
"""Events after which a script does nothing more: they may insert for ever."""


@attrs.frozen
class Rule:
    """What a state does with an event: both sides read it."""

    next_state: str | None
    postpones: bool
    inserts: tuple[str, ...]
    timeouts: tuple[tuple[str, str, float], ...]  # kind, how, seconds
    on_enter: tuple[tuple[str, str, float], ...]
    repeats: bool


NOTHING = Rule(None, False, (), (), (), False)

timeouts = st.lists(
    st.tuples(
        st.sampled_from(KINDS),
        st.sampled_from(("after", "at", "update", "cancel")),
        st.sampled_from((0.0, 1.0, 2.0, 5.0, inf)),
    ),
    max_size=3,
).map(tuple)
rules = st.builds(
    Rule,
    st.one_of(st.none(), st.sampled_from(STATES)),
    st.booleans(),
    st.lists(st.sampled_from(LABELS), max_size=2).map(tuple),
    timeouts,
    timeouts,
    st.booleans(),
)
# Keyed by state and by what an event is called, whatever made it.
programs = st.dictionaries(
    st.tuples(st.sampled_from(STATES), st.sampled_from((*LABELS, *KINDS))),
    rules,
    max_size=12,
)
steps = st.lists(
    st.one_of(
        st.sampled_from(LABELS), st.sampled_from((0.5, 1.0, 3.0)), st.just("run")
    ),
    max_size=12,
)
Program = dict[tuple[str, str], Rule]


# --- the model --------------------------------------------------------------------


class Model:
    """What the documentation says, with no thought for speed."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.state = "s0"
        self.log: list[tuple[str, str, str]] = []
        self.line: list[list[Any]] = []  # label, content, postponed?
        self.mailbox: list[tuple[str, Any]] = []
        self.now = 0.0
        self.started = 0
        self.running: dict[str, dict[str, Any]] = {}  # kind -> number, due, content

    def send(self, label: str) -> None:
        self.mailbox.append(("message", label))

    def advance(self, seconds: float) -> None:
        """Let timers fire into the mailbox in the order in which they are due."""
        self.now += seconds
        due = [
            (t["due"], t["number"], kind)
            for kind, t in self.running.items()
            if not t["zero"] and not t["fired"] and t["due"] <= self.now
        ]
        for _, number, kind in sorted(due):
            self.running[kind]["fired"] = True
            self.mailbox.append(("fired", (kind, number)))

    def run(self) -> None:
        while (found := self.take()) is not None:
            self.handle(*found)

    def take(self) -> tuple[int, str, str] | None:
        for place, (label, content, postponed) in enumerate(self.line):
            if not postponed:
                return place, label, content
        zeros = [(t["number"], kind) for kind, t in self.running.items() if t["zero"]]
        if zeros:
            kind = min(zeros)[1]
            content = self.running.pop(kind)["content"]
            self.line.append([kind, content, False])
            return len(self.line) - 1, kind, content
        while self.mailbox:
            what, value = self.mailbox.pop(0)
            if what == "message":
                self.line.append([value, "sent", False])
                return len(self.line) - 1, value, "sent"
            kind, number = value
            # Never delivered once it was cancelled or started anew.
            if kind in self.running and self.running[kind]["number"] == number:
                content = self.running.pop(kind)["content"]
                self.line.append([kind, content, False])
                return len(self.line) - 1, kind, content
        return None

    def handle(self, place: int, label: str, content: str) -> None:
        self.log.append((self.state, label, content))
        rule = self.program.get((self.state, label), NOTHING)
        if len(self.log) > FUEL:
            rule = NOTHING
        old, new = self.state, rule.next_state or self.state
        self.state = new
        wanted = list(rule.timeouts)
        if new != old or rule.repeats:
            self.log.append((new, "enter", old))
            wanted += rule.on_enter
        if rule.postpones:
            self.line[place][2] = True
            place += 1
        else:
            del self.line[place]
        self.running.pop("event", None)
        if new != old:
            self.running.pop("state", None)
            for entry in self.line:
                entry[2] = False
        last = {kind: i for i, (kind, _, _) in enumerate(wanted)}
        for i, (kind, how, seconds) in enumerate(wanted):
            if last[kind] == i:
                self.set_timeout(kind, how, seconds)
        first = 0 if new != old else place
        self.line[first:first] = [[each, "inserted", False] for each in rule.inserts]

    def set_timeout(self, kind: str, how: str, seconds: float) -> None:
        content = f"{how} {seconds} in {self.state}"
        if how == "update" and kind in self.running:
            self.running[kind]["content"] = content
            return
        self.running.pop(kind, None)
        if how == "cancel" or (seconds == inf and how != "update"):
            return
        self.started += 1
        zero = how == "update" or (how == "after" and seconds == 0)
        due = self.now + seconds if how == "after" else seconds
        self.running[kind] = {
            "number": self.started,
            "zero": zero,
            "due": due,
            "content": content,
            "fired": False,
        }


# --- the engine, driven ---------------------------------------------------------------


@attrs.define(eq=False)
class _Timer:
    due: float
    number: int
    timeout: RunningTimeout
    armed: bool = True

    def cancel(self) -> None:
        self.armed = False


class Driven:
    """The engine with a mailbox and a clock around it."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.engine = Engine(self)
        self.engine.begin("s0")
        self.log: list[tuple[str, str, str]] = []
        self.mailbox: list[object] = []
        self.timers: list[_Timer] = []
        self.now = 0.0

    def arm(self, timeout: RunningTimeout, time_s: float, *, absolute: bool) -> _Timer:
        due = time_s if absolute else self.now + time_s
        timer = _Timer(due, len(self.timers), timeout)
        self.timers.append(timer)
        return timer

    def send(self, label: str) -> None:
        self.mailbox.append(Info(label))

    def advance(self, seconds: float) -> None:
        self.now += seconds
        due = [t for t in self.timers if t.armed and t.due <= self.now]
        for timer in sorted(due, key=lambda t: (t.due, t.number)):
            timer.armed = False
            self.mailbox.append(timer.timeout)

    def run(self) -> None:
        while self.engine.waiting or self.mailbox:
            if self.engine.waiting:
                self.handle(self.engine.next_event())
                continue
            item = self.mailbox.pop(0)
            event = (
                self.engine.fired(item) if isinstance(item, RunningTimeout) else item
            )
            if event is not None:
                self.handle(event)

    def handle(self, event: Any) -> None:
        engine = self.engine
        label, content = _told(event)
        self.log.append((str(engine.state), label, content))
        rule = self.program.get((str(engine.state), label), NOTHING)
        if len(self.log) > FUEL:
            rule = NOTHING
        new = rule.next_state or engine.state
        enters = engine.leaves_for(new) or rule.repeats
        engine.state = new
        for action in self.actions(rule.timeouts):
            engine.note(action, event)
        if rule.postpones:
            engine.note(Postpone(), event)
        for each in rule.inserts:
            engine.note(Insert(Internal(each)), event)
        if enters:
            self.log.append((str(new), "enter", str(engine.old)))
            for action in self.actions(rule.on_enter):
                engine.note(action, Enter(engine.old))
        engine.settle(event)

    def actions(self, wanted: tuple[tuple[str, str, float], ...]) -> list[SetTimeout]:
        found = []
        for kind, how, seconds in wanted:
            content = f"{how} {seconds} in {self.engine.state}"
            one: Any = {"state": StateTimeout, "event": EventTimeout}.get(kind, Timeout)
            name = (kind,) if one is Timeout else ()
            arguments = {
                "after": (seconds, content),
                "at": (seconds, content),
                "update": (content,),
                "cancel": (),
            }
            found.append(getattr(one, how)(*name, *arguments[how]))
        return found


def _told(event: Any) -> tuple[str, str]:
    match event:
        case Info(label):
            return str(label), "sent"
        case Internal(label):
            return str(label), "inserted"
        case StateTimeout(content):
            return "state", str(content)
        case EventTimeout(content):
            return "event", str(content)
        case Timeout(name, content):
            return str(name), str(content)
    raise AssertionError(event)


def _play(side: Model | Driven, script: list[str | float]) -> None:
    for step in (*script, "run"):
        if isinstance(step, float):
            side.advance(step)
        elif step == "run":
            side.run()
        else:
            side.send(step)


# A postponed event, an inserted one and two time-outs of 0, in one transition.
CROWDED = {
    ("s0", "a"): attrs.evolve(NOTHING, postpones=True),
    ("s0", "b"): Rule(
        "s1",
        True,
        ("c", "b"),
        (("event", "after", 0.0), ("state", "after", 0.0)),
        (("x", "after", 0.0), ("event", "after", 0.0)),
        False,
    ),
}


# A timer that has fired already when the time-out is started anew.
LATE = {("s0", "a"): attrs.evolve(NOTHING, timeouts=(("x", "after", 1.0),))}

# The last of a kind counts, and stands where it was asked for.
AGAIN = {
    ("s0", "a"): attrs.evolve(
        NOTHING,
        timeouts=(("x", "after", 0.0), ("y", "after", 0.0), ("x", "after", 0.0)),
    )
}
# An update changes what the event says, not when it comes.
UPDATED = {
    ("s0", "a"): attrs.evolve(NOTHING, timeouts=(("x", "after", 2.0),)),
    ("s0", "b"): attrs.evolve(NOTHING, timeouts=(("x", "update", 0.0),)),
}


@settings(max_examples=120, deadline=None)
@given(programs, steps)
@example(CROWDED, ["a", "a", "b", "c"])
@example({("s0", "a"): attrs.evolve(NOTHING, timeouts=(("x", "at", 0.0),))}, ["a", 0.5])
@example(AGAIN, ["a"])
@example(UPDATED, ["a", "b", "run", "c", "run", 3.0])
@example(LATE, ["a", "run", "a", 1.0])
def test_events_come_in_the_order_that_the_documentation_says(
    program: Program, script: list[str | float]
) -> None:
    """[gen_statem: transition_option()] The steps of a transition, in this order:
    actions, enter calls, postpone, the postponed again after a change, insertions,
    time-outs, the next event.
    """
    model, driven = Model(program), Driven(program)
    _play(model, script)
    _play(driven, script)

    assert driven.log == model.log
    assert driven.engine.state == model.state
    assert [_told(event) for event in driven.engine.postponed] == [
        (label, content) for label, content, _ in model.line
    ]
    assert not driven.engine.waiting
    running = {kind for kind, timeout in model.running.items()}
    names = {StateTimeout: "state", EventTimeout: "event"}
    assert {
        key[1] if isinstance(key, tuple) else names[key]  # type: ignore[index]
        for key in driven.engine.timeouts
    } == running
    assert sum(timer.armed for timer in driven.timers) == len(running)
