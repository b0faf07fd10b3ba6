"""How a model hub is asked: one GET after another, and what its answers mean.

What goes wrong on the network is one error, :class:`UnreachableError`, whatever the
layer that says so (names, routes, TLS, HTTP): asking again may help.  It is told from
what goes wrong on the disk by where it comes from, and not by its kind, for both are
an ``OSError``.

All functions block; they belong in a worker thread.
"""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from contextlib import contextmanager
from http.client import HTTPException, HTTPResponse
from typing import IO, TYPE_CHECKING, Any
from urllib.parse import urljoin, urlsplit

import attrs

from atomr_infer.errors import ConfigError, EngineStartError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager
    from http.client import HTTPMessage

    from atomr_infer.model.secret import Secret
    from atomr_infer.runtimes.hub.names import HubModel

_SILENCE_S = 30.0
_MAX_LIST_BYTES = 32 << 20
_MAX_PAGES = 200
"""Of a list; a hub puts about a thousand files on each."""
_RESUMED = 206

_LINK = re.compile(r"<([^>]*)>([^,]*)")
_IS_NEXT = re.compile(r""";\s*rel\s*=\s*"?next"?\s*(;|$)""", re.IGNORECASE)
_BEARER = re.compile(r"[\x20-\x7e]*")
_LINE_BREAK = re.compile(r"[\r\n]")


class UnreachableError(Exception):
    """The hub could not be asked, or did not finish."""


@attrs.frozen
class Answer:
    """The content of one answer, as it comes.

    Attributes:
        is_rest: whether it begins where it was asked to, and not at the beginning.
    """

    is_rest: bool
    _response: HTTPResponse
    _asker: HubAsker

    def read(self, most_bytes: int) -> bytes:
        """Return what has come, as soon as something has; empty: it is over.

        Raises:
            UnreachableError: it was cut off.
        """
        try:
            # One that waits for so many bytes loses those before an error.
            return self._response.read1(most_bytes)
        except (OSError, HTTPException) as error:
            raise self._asker.unreachable(repr(error)) from error

    def next_page(self) -> str | None:
        """Return the address at which a list goes on; None: it ends here."""
        for link in self._response.headers.get_all("link") or ():
            for address, parameters in _LINK.findall(link):
                if _IS_NEXT.search(parameters):
                    following: str = urljoin(self._response.url, address)
                    return following
        return None


class HubAsker:
    """Asks a hub for what concerns one model.

    Args:
        endpoint: the hub's address.
        model: the model, for messages.
        token: opens models that are not public; the hub alone gets to see it.

    Raises:
        ConfigError: the token is none that can be sent.
    """

    def __init__(self, endpoint: str, model: HubModel, token: Secret | None) -> None:
        self._endpoint = endpoint
        self._model = model
        self._token = token
        if token is not None:
            _check_token(token)
        self._opener = urllib.request.build_opener(_Redirects())

    def json(self, path: str) -> Any:  # noqa: ANN401 - JSON
        """Return what the hub says.

        Raises:
            ConfigError: it is not there, or not open.
            EngineStartError: it has no end.
            UnreachableError: it cannot be asked now, or something else answers.
        """
        with self.opened(path) as answer:
            return self._parsed(_body(answer, _MAX_LIST_BYTES))

    def pages(self, path: str) -> list[Any]:
        """Return a list of the hub's, with all its pages.

        Raises:
            ConfigError: it is not there, or not open.
            EngineStartError: it is no list, has no end, or goes on at another host.
            UnreachableError: it cannot be asked now, or something else answers.
        """
        found: list[Any] = []
        address, left = self._endpoint + path, _MAX_LIST_BYTES
        for _ in range(_MAX_PAGES):
            with self._opened(address) as answer:
                body = _body(answer, left)
                following = answer.next_page()
            left -= len(body)
            page = self._parsed(body)
            if not isinstance(page, list):
                raise EngineStartError("the model hub's list of files is no list")
            found += page
            if following is None:
                return found
            address = self._own(following)
        raise EngineStartError(
            f"the model hub's list of files goes on after {_MAX_PAGES} pages"
        )

    def _own(self, address: str) -> str:
        """Return an address that the hub named, which gets to see the token.

        Raises:
            EngineStartError: it is another host's.
        """
        host = urlsplit(self._endpoint.lower())[:2]
        if urlsplit(address.lower())[:2] != host:
            raise EngineStartError(
                f"the list of files of {self._model.repo!r} goes on at {address!r}, "
                f"and not at {host[1]}; if HF_ENDPOINT names a mirror, name another "
                "one, or the hub itself"
            )
        return address

    def _parsed(self, body: bytes) -> Any:  # noqa: ANN401 - JSON
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            # It was cut off, or a network's page to log in stands in its place.
            raise self.unreachable(
                f"its answer is no JSON, and begins with {body[:20]!r}"
            ) from error

    def opened(self, path: str, *, at: int = 0) -> AbstractContextManager[Answer]:
        """Ask for a path's content; the block reads it.

        Args:
            path: the path.
            at: how many bytes of it are here already.

        Raises:
            ConfigError: it is not there, or not open.
            UnreachableError: it cannot be asked now.
        """
        return self._opened(self._endpoint + path, at=at)

    @contextmanager
    def _opened(self, address: str, *, at: int = 0) -> Iterator[Answer]:
        request = urllib.request.Request(address)
        if self._token is not None:
            bearer = f"Bearer {self._token.reveal()}"
            request.add_unredirected_header("authorization", bearer)
        if at:
            request.add_header("range", f"bytes={at}-")
        with self._response(request) as response:
            yield Answer(response.status == _RESUMED, response, self)

    def _response(self, request: urllib.request.Request) -> HTTPResponse:
        try:
            response: HTTPResponse = self._opener.open(request, timeout=_SILENCE_S)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error.code) from error
        except urllib.error.URLError as error:
            raise self.unreachable(error.reason) from error
        except (OSError, HTTPException) as error:
            raise self.unreachable(repr(error)) from error
        return response

    def unreachable(self, why: object) -> UnreachableError:
        """Return what is told of an answer that did not come, or not whole."""
        return UnreachableError(
            f"the model hub {urlsplit(self._endpoint).netloc} cannot be reached: {why}"
        )

    def _refused(self, status: int) -> Exception:
        model = self._model
        if status in (401, 403):
            opens = "the deployment's credential does not open it"
            if self._token is None:
                opens = 'name a token: credential = { env = "HF_TOKEN" }'
            return ConfigError(
                f"the model {model.repo!r} is not public, or not there: {opens}"
            )
        if status == 404:
            return ConfigError(
                f"the hub has no model {model.repo!r} with the revision "
                f"{model.revision!r}"
            )
        return UnreachableError(f"the model hub answers {status} for {model.repo!r}")


def _body(answer: Answer, most_bytes: int) -> bytes:
    body = b""
    while piece := answer.read(most_bytes + 1 - len(body)):
        body += piece
    if len(body) > most_bytes:
        raise EngineStartError("the model hub's answer has no end")
    return body


def _check_token(token: Secret) -> None:
    """Refuse a token that no header can hold, without showing it.

    What would send it shows it in its error.
    """
    text = token.reveal()
    if _BEARER.fullmatch(text):
        return
    if _LINE_BREAK.search(text):
        raise ConfigError(
            "the token for the model hub, which is the deployment's credential, has a "
            "line break in it; write it on one line"
        )
    raise ConfigError(
        "the token for the model hub, which is the deployment's credential, has a "
        "character in it that is not in ASCII, or is not printed; copy it once more"
    )


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows to where files lie; the token stays with the hub."""

    max_redirections = 5

    def redirect_request(
        self,
        req: urllib.request.Request,
        fp: IO[bytes],
        code: int,
        msg: str,
        headers: HTTPMessage,
        newurl: str,
    ) -> urllib.request.Request | None:
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        if new is not None and new.host == req.host and new.type == req.type:
            new.unredirected_hdrs.update(req.unredirected_hdrs)
        return new
