"""Reading secrets from where the configuration says they are.

The only place where a :class:`~atomr_infer.model.secret.Secret` is made from
the environment or a file.  White space around the text is dropped: a key never
has any, and a newline behind one is what ``echo`` and editors leave.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from atomr_infer.errors import MissingSecretError
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret

_MAX_CHARS = 65536
"""Longest content of a file; a service account's key has some 2400 characters."""

ReadableSource = EnvSecret | FileSecret | Secret
"""Where a secret can be read at any time, without asking anybody."""


class Environ(Mapping[str, str]):
    """An environment that does not show what is in it.

    ``os.environ`` shows every variable in its ``repr``, and with it the keys of
    whatever holds on to it: a server's state, a partial function.

    >>> Environ({"OPENAI_API_KEY": "sk-123"})
    <an environment>
    """

    def __init__(self, variables: Mapping[str, str]) -> None:
        def behind() -> Mapping[str, str]:
            return variables

        # A function, so that showing our attributes shows nothing either.
        self._variables = behind

    def __getitem__(self, name: str) -> str:
        return self._variables()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._variables())

    def __len__(self) -> int:
        return len(self._variables())

    def __repr__(self) -> str:
        return "<an environment>"


def resolve(
    source: ReadableSource, environ: Mapping[str, str], *, deployment: str | None
) -> Secret:
    """Return the secret that ``source`` points at.

    Args:
        source: where it is; a :class:`Secret` is returned as it is.
        environ: the environment to look into.
        deployment: whose secret it is, for the error; None: the gateway's.

    Raises:
        MissingSecretError: the variable or file is absent, empty or cannot be
            read; the message says which, and how to mend it.
    """
    whose = f"deployment {deployment!r} has no credential"
    if deployment is None:
        whose = "the gateway has no key"
    return resolve_own(source, environ, lacking=whose)


def resolve_own(
    source: ReadableSource, environ: Mapping[str, str], *, lacking: str
) -> Secret:
    """Return the secret that ``source`` points at.

    Args:
        source: where it is; a :class:`Secret` is returned as it is.
        environ: the environment to look into.
        lacking: who is without it, the beginning of the error's sentence.

    Raises:
        MissingSecretError: as :func:`resolve` does.
    """
    if isinstance(source, Secret):
        return source
    if isinstance(source, EnvSecret):
        text, where = _from_environment(source, environ, lacking)
    else:
        text, where = _from_file(source, lacking)
    if not text.strip():
        raise _missing(lacking, f"{where} is empty; put the key there")
    return Secret(text.strip())


def _from_environment(
    source: EnvSecret, environ: Mapping[str, str], lacking: str
) -> tuple[str, str]:
    where = f"the environment variable {source.variable}"
    if source.variable not in environ:
        fix = f"set it with: export {source.variable}=..."
        raise _missing(lacking, f"{where} is not set; {fix}")
    return environ[source.variable], where


def _from_file(source: FileSecret, lacking: str) -> tuple[str, str]:
    where = f"the file {source.path}"
    try:
        # Bounded: a path that names a device would never end.
        with Path(source.path).open(encoding="utf-8") as file:
            text = file.read(_MAX_CHARS + 1)
    except FileNotFoundError as error:
        problem = f"{where} does not exist; write the key into it"
        raise _missing(lacking, problem) from error
    except OSError as error:
        reason = error.strerror or type(error).__name__
        problem = f"{where} cannot be read ({reason}); let this user read it"
        raise _missing(lacking, problem) from error
    except UnicodeDecodeError:
        # Not chained: that error carries the file's bytes, which are secret.
        problem = f"{where} is not UTF-8 text; it must hold the key and nothing else"
        raise _missing(lacking, problem) from None
    except ValueError as error:
        problem = f"{where!r} is no path: {error}"
        raise _missing(lacking, problem) from error
    if len(text) > _MAX_CHARS:
        problem = f"{where} is too long; it must hold the key and nothing else"
        raise _missing(lacking, problem)
    return text, where


def _missing(lacking: str, problem: str) -> MissingSecretError:
    return MissingSecretError(f"{lacking}: {problem}")
