"""Models of a hub (Hugging Face's, or one that speaks as it does), fetched once.

They lie in a cache that all processes of a user share::

    ${ATOMR_INFER_CACHE:-${XDG_CACHE_HOME:-~/.cache}/atomr-infer}/hub/ORG--NAME/
        refs/REVISION           the commit that a branch was, when it was asked last
        COMMIT/...              the files; each is whole, and its digest was right
        COMMIT/.whole           those that came whole, their sizes, and what has all
                                its files
        COMMIT/....partial      what has come of a file; a later try goes on from there
        lock                    held by whoever fetches

A file that is there was checked against the digest that the hub says; one that has
gone since, or has another size, is fetched again.  Where the hub cannot be reached, or
breaks off, what is whole in the cache serves: that of an earlier commit, too.  All
functions block; they belong in a worker thread.
"""

from __future__ import annotations

import hashlib
import logging
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import attrs

from atomr_infer.errors import EngineStartError
from atomr_infer.model.secret import Secret
from atomr_infer.runtimes.cache import (
    TOO_BIG,
    disk_full,
    free_disk_bytes,
    locked,
    own_cache,
)
from atomr_infer.runtimes.contract import Progress
from atomr_infer.runtimes.hub.files import (
    ENDPOINT,
    HubFile,
    commit_of,
    file_path,
    files_of,
    revision_path,
    tree_path,
    wanted_files,
)
from atomr_infer.runtimes.hub.http import HubAsker, UnreachableError
from atomr_infer.runtimes.hub.marks import marks, place_in
from atomr_infer.runtimes.hub.notes import (
    Note,
    check_name,
    is_whole,
    read_note,
    replace,
    settle,
    write_note,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from atomr_infer.runtimes.hub.names import HubModel

log = logging.getLogger(__name__)

_PIECE_BYTES = 1 << 20
_NETWORK_BYTES = 1 << 17
_TELL_EVERY_S = 0.2
_TRIES = 5
"""In a row, of which none brought a byte more of a file."""

_WAITING = Progress("waiting for another process that fetches the model")


@attrs.frozen
class Hub:
    """Where models are fetched from, and kept.

    Attributes:
        endpoint: the hub's address.
        folder: the cache.
        token: opens models that are not public; None: there is none.
        is_offline: whether nobody is asked.
        pause_s: between two tries, and so much more after each in vain.
    """

    endpoint: str
    folder: Path
    token: Secret | None = None
    is_offline: bool = False
    pause_s: float = 1.0


def hub_of(environ: Mapping[str, str], token: Secret | None) -> Hub:
    """Return the hub that the environment names: ``HF_ENDPOINT``, ``HF_HUB_OFFLINE``.

    Args:
        environ: the environment.
        token: the deployment's credential.

    Raises:
        ConfigError: the cache is in a home that does not exist.
    """
    return Hub(
        endpoint=(environ.get("HF_ENDPOINT") or ENDPOINT).rstrip("/"),
        folder=own_cache(environ) / "hub",
        token=token,
        is_offline=environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"),
    )


def fetch_model(
    hub: Hub,
    model: HubModel,
    weights: tuple[str, ...],
    report: Callable[[Progress], None],
) -> Path:
    """Return where a model's file or directory is, fetched if it is not there.

    Args:
        hub: whom to ask.
        model: what is wanted.
        weights: the endings of files with weights that the engine reads.
        report: told how many bytes have come.

    Raises:
        ConfigError: the model, its revision or its file is not there, or it is not
            public and the token does not open it, or cannot be sent.
        EngineStartError: it could not be fetched, or the disk is full.
    """
    home = hub.folder / model.repo.replace("/", "--")
    try:
        if hub.is_offline:
            return _kept(home, model, weights, "HF_HUB_OFFLINE is set")
        home.mkdir(parents=True, exist_ok=True)
        with locked(home / "lock", lambda: report(_WAITING)):
            return _Fetching(hub, model, home, report).run(weights)
    except OSError as error:
        if error.errno in TOO_BIG:
            raise disk_full(home, None, error) from error
        problem = f"the cache {str(home)!r} cannot be used: {error}"
        raise EngineStartError(problem) from error


class _Fetching:
    def __init__(
        self,
        hub: Hub,
        model: HubModel,
        home: Path,
        report: Callable[[Progress], None],
    ) -> None:
        self._hub = hub
        self._model = model
        self._home = home
        self._report = report
        self._phase = f"fetching {model.repo}"
        self._done = 0
        self._total = 0
        self._told_at = 0.0
        self._asker = HubAsker(hub.endpoint, model, hub.token)

    def run(self, weights: tuple[str, ...]) -> Path:
        self._report(Progress(f"asking for {self._model.repo}"))
        try:
            commit = commit_of(self._asker.json(revision_path(self._model)))
        except UnreachableError as error:
            return _kept(self._home, self._model, weights, str(error))
        folder = self._home / commit
        kept = _whole(folder, self._model, weights)
        if kept is None:
            try:
                listed = files_of(self._asker.pages(tree_path(self._model, commit)))
                self._fetch_all(folder, listed, weights)
                kept = _whole(folder, self._model, weights)
            except UnreachableError as error:
                return self._before(commit, weights, str(error))
        ref = _ref(self._home, self._model)
        ref.parent.mkdir(exist_ok=True)
        replace(ref, [commit])
        assert kept is not None, "it was fetched in the lines above"
        return kept

    def _before(self, commit: str, weights: tuple[str, ...], why: str) -> Path:
        """Return what is in the cache of a revision that could not be fetched.

        Raises:
            EngineStartError: neither this commit nor the one before is whole.
        """
        at_commit = attrs.evolve(self._model, revision=commit)
        try:
            return _kept(self._home, at_commit, weights, why)
        except EngineStartError:
            ref = _ref(self._home, self._model)
            before = ref.read_text().strip() if ref.exists() else commit
            at_commit = attrs.evolve(self._model, revision=before)
            if before == commit:
                raise
            kept = _kept(self._home, at_commit, weights, why)
        log.warning(
            "%s: %s is %s now, which could not be fetched; the earlier %s serves: %s",
            self._model.repo,
            self._model.revision,
            commit,
            before,
            why,
        )
        return kept

    def _fetch_all(
        self, folder: Path, listed: tuple[HubFile, ...], weights: tuple[str, ...]
    ) -> None:
        wanted = wanted_files(self._model, listed, weights)
        for file in wanted.files:
            check_name(file.path, self._model.repo)
        folder.mkdir(exist_ok=True)
        for choice in wanted.choices(self._model):
            log.info("%s", choice)
        missing = [file for file in wanted.files if not _is_here(file, folder)]
        self._total = sum(file.size for file in wanted.files)
        self._done = self._total - sum(file.size for file in missing)
        needed = _left(missing, folder)
        if free_disk_bytes(folder) < needed:
            raise disk_full(folder, needed)
        try:
            for file in missing:
                self._fetch(file, folder)
        except OSError as error:
            if error.errno not in TOO_BIG:
                raise
            # Others have written there meanwhile.
            raise disk_full(folder, _left(missing, folder), error) from error
        self._note({file.path for file in wanted.files}, folder, listed, weights)

    def _note(
        self,
        came: set[str],
        folder: Path,
        listed: tuple[HubFile, ...],
        weights: tuple[str, ...],
    ) -> None:
        """Note what came, beside what was noted for others."""
        before = read_note(folder)
        # One that has gone stays noted: what needs it is not whole without it.
        files = {
            file.path: file
            for file in listed
            if file.path in before.files or file.path in came
        }
        there = {path for path, file in files.items() if _is_here(file, folder)}
        write_note(
            folder,
            Note(
                files=frozenset(files),
                marks=before.marks | marks(there, self._model, listed, weights),
                sizes={path: file.size for path, file in files.items()},
            ),
        )

    def _fetch(self, file: HubFile, folder: Path) -> None:
        target = folder / file.path
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = _partial(target)
        begun = self._done
        most, vain = _size(partial), 0
        while True:
            try:
                self._receive(file, folder, begun)
            except UnreachableError as error:
                # A hub that knows no ranges sends what was here already, too.
                vain = 0 if _size(partial) > most else vain + 1
                most = max(most, _size(partial))
                if vain == _TRIES:
                    raise
                log.warning(
                    "%s: cut off; it goes on from there: %s", self._phase, error
                )
                time.sleep((vain + 1) * self._hub.pause_s)
            else:
                break
        self._check(file, partial)
        settle(partial, target)
        self._done = begun + file.size

    def _receive(self, file: HubFile, folder: Path, begun: int) -> None:
        """Append what is missing of a file to what has come of it."""
        partial = _partial(folder / file.path)
        at = _size(partial)
        if at == file.size and partial.exists():
            return
        path = file_path(self._model, folder.name, file.path)
        with self._asker.opened(path, at=at) as answer:
            if not answer.is_rest:
                at = 0  # it sends all of it
            with partial.open("ab" if at else "wb") as out:
                while piece := answer.read(_NETWORK_BYTES):
                    at += len(piece)
                    if at > file.size:
                        break
                    out.write(piece)
                    self._tell(begun + at)
        if at < file.size:
            raise self._asker.unreachable(f"it sent {at} of {file.size} bytes")
        if at > file.size:
            partial.unlink()
            raise EngineStartError(f"{file.path!r} is longer than the hub says")

    def _tell(self, done: int) -> None:
        now = time.monotonic()
        if done == self._total or now - self._told_at > _TELL_EVERY_S:
            self._told_at = now
            self._report(Progress(self._phase, done, self._total))

    def _check(self, file: HubFile, partial: Path) -> None:
        expected = file.sha256 or file.git_sha1
        if _digest(file, partial) != expected:
            partial.unlink()
            raise EngineStartError(
                f"{file.path!r} of {self._model.repo!r} is damaged: its digest is not "
                f"{expected}; it was removed"
            )


def _kept(home: Path, model: HubModel, weights: tuple[str, ...], why: str) -> Path:
    """Return what is in the cache of a model that cannot be asked for.

    Raises:
        EngineStartError: it is not there, or not whole.
    """
    ref = _ref(home, model)
    commit = ref.read_text().strip() if ref.exists() else model.revision
    found = _whole(home / commit, model, weights, is_asked=False)
    if found is None:
        raise EngineStartError(
            f"the model {model.repo!r} is not in the cache {str(home)!r}, and {why}"
        )
    log.info("%s is taken from the cache: %s", model.repo, why)
    return found


def _ref(home: Path, model: HubModel) -> Path:
    """Return the file that says which commit a revision was last."""
    return home / "refs" / quote(model.revision, safe="")


def _whole(
    folder: Path, model: HubModel, weights: tuple[str, ...], *, is_asked: bool = True
) -> Path | None:
    """Return where a model is that has come whole; None: it has not."""
    note = read_note(folder)
    at = place_in(note, note.there(folder), model, weights, is_asked=is_asked)
    return None if at is None else folder / at


def _digest(file: HubFile, partial: Path) -> str:
    digest = hashlib.sha256()
    if file.sha256 is None:
        digest = hashlib.sha1(b"blob %d\0" % file.size, usedforsecurity=False)
    with partial.open("rb") as content:
        while piece := content.read(_PIECE_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def _partial(target: Path) -> Path:
    return target.with_name(f"{target.name}.partial")


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _left(files: Iterable[HubFile], folder: Path) -> int:
    """Return how many bytes of files are not there yet."""
    return sum(
        file.size - _size(_partial(folder / file.path))
        for file in files
        if not _is_here(file, folder)
    )


def _is_here(file: HubFile, folder: Path) -> bool:
    return is_whole(folder / file.path, file.size)
