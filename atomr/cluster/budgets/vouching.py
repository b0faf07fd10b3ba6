"""Whether a file is the first that its node has, as the others know.

Each voter remembers the first file of each other one, and says so.  When a majority,
this node among it, knows of no earlier one, there was none that anybody of it met.

Pure.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from atomr.cluster.budgets.frames import Hello

if TYPE_CHECKING:
    from collections.abc import Sequence

    from atomr.cluster.budgets.kept import Stored

_COUNT = {1: "one", 2: "two", 3: "three"}


class Vouching:
    """What the voters say of each other's files.

    Attributes:
        heard: the first file that was heard of, by node.
        present: the one that each node has that is up.
        lost: this node's first file, which is not the one that it has; empty: nobody
            knows of another one.
        is_vouched: whether it is certain that there was none.
        is_dirty: whether something of it is to be written.
    """

    __slots__ = (
        "_answers",
        "_file",
        "_voters",
        "_vouchers",
        "heard",
        "is_dirty",
        "is_vouched",
        "lost",
        "present",
    )

    def __init__(self, stored: Stored, voters: int) -> None:
        """Start from what the file says.

        Args:
            stored: the file.
            voters: how many there are, with this node.
        """
        self.heard = dict(stored.heard)
        self.present: dict[str, str] = {}
        self.lost = ""
        self.is_vouched = stored.is_vouched or voters == 1
        self.is_dirty = False
        self._file = stored.file
        self._voters = voters
        self._vouchers: set[str] = set()
        self._answers: dict[str, None] = {}

    @property
    def hello(self) -> Hello:
        """What is said to a node that is up."""
        return Hello(self._file, "", is_answer=False)

    def greeted(self, sender: str, hello: Hello) -> bool:
        """Take what a node said; True: the file is vouched for from now on."""
        self.present[sender] = hello.file
        if sender not in self.heard:
            self.heard[sender] = hello.file
            self.is_dirty = True
        if not hello.is_answer:
            self._answers[sender] = None
            return False
        if self.is_vouched or self.lost:
            return False
        if hello.first != self._file:
            self.lost = hello.first
            return False
        self._vouchers.add(sender)
        if 2 * (len(self._vouchers) + 1) <= self._voters:
            return False
        self.is_vouched = self.is_dirty = True
        return True

    def asks_again(self, sender: str, hello: Hello) -> bool:
        """Whether who says hello is to be asked: it may not have heard us before."""
        is_known = self.is_vouched or self.lost or sender in self._vouchers
        return not (hello.is_answer or is_known)

    def take_answers(self) -> list[tuple[str, Hello]]:
        """Return what is to be answered, now that the disk has what was heard."""
        answers, self._answers = self._answers, {}
        return [
            (to, Hello(self._file, self.heard[to], is_answer=True)) for to in answers
        ]

    def in_use(self, name: str) -> set[str]:
        """Return the ids of ledgers that nodes have which are up, this one too."""
        files = {**self.present, name: self._file}
        return {f"{node}/{file}" for node, file in files.items()}

    @property
    def vouchers(self) -> frozenset[str]:
        """The nodes that have vouched for this one's file."""
        return frozenset(self._vouchers)

    def why(self, name: str, awaited: Sequence[str]) -> str:
        """Return why a node's part of a running budget is not made.

        Args:
            name: the node's.
            awaited: the voters that have not said what they know, sorted.
        """
        if self.lost:
            return (
                f"{name} has lost its file: its part comes back with the next period,"
                f" or by a reclaim of {f'{name}/{self.lost}'!r}"
            )
        needed = self._voters // 2 + 1 - (self._voters - len(awaited))
        whom = (
            awaited[0]
            if len(awaited) == 1
            else f"{_COUNT.get(needed, needed)} of {', '.join(awaited)}"
        )
        return (
            f"{name} has a new file, and waits for {whom} to say that it had none"
            " before"
        )
