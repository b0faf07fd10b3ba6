"""The gateway's routes over one serving tree, whatever carries a request.

When the client leaves, its request is cancelled, and with it the generation,
whatever it waits for; the exchange sees to that (``Exchange.run``).
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

import msgspec
import trio

from atomr_infer._version import VERSION
from atomr_infer.errors import (
    InferenceError,
    InternalError,
    InvalidRequestError,
    NotReadyError,
)
from atomr_infer.gateway.access.conversations import Conversations
from atomr_infer.gateway.access.cors import Cors
from atomr_infer.gateway.access.door import Door
from atomr_infer.gateway.access.entitled import check_model, discreet
from atomr_infer.gateway.access.tenants import Tenants
from atomr_infer.gateway.api import whole_routes as whole
from atomr_infer.gateway.api.asking import Asking, asking, note_answer
from atomr_infer.gateway.api.generation import Backing, Generation
from atomr_infer.gateway.api.openapi import document
from atomr_infer.gateway.api.tensor_routes import tensors
from atomr_infer.gateway.exchanges import reading
from atomr_infer.gateway.exchanges.answer_headers import overhead_headers
from atomr_infer.gateway.exchanges.exchange import (
    ClientGoneError,
    Exchange,
    Headers,
    Work,
)
from atomr_infer.gateway.exchanges.ingresses import INGRESSES
from atomr_infer.gateway.exchanges.refusals import (
    CLOSE,
    RETRY_SOON,
    answer_error,
    fail,
    new_id,
    refuse,
)
from atomr_infer.gateway.exchanges.routes import (
    ASKS_A_MODEL,
    Action,
    NoRoute,
    Target,
    WrongMethod,
    endpoints,
)
from atomr_infer.gateway.exchanges.silences import Silences
from atomr_infer.gateway.listening import asgi_exchange as asgi
from atomr_infer.model.asker import Visitor
from atomr_infer.store.responses import ResponseStore
from atomr_infer.wire.ingress import Call

if TYPE_CHECKING:
    from atomr_infer.serving.shared import Serving

log = logging.getLogger(__name__)

# Whoever balances the load looks about so often.
_ELSEWHERE_S = 5.0

_NOT_READY = 503

Operation = Callable[[Exchange, Target, Visitor], Awaitable[None]]
Fail = Callable[[InferenceError], Awaitable[None]]
WholeRoute = Callable[["Serving", Call, Target], Awaitable[whole.WholeAnswer]]


class GatewayApp:
    """The routes, and the requests that are being answered.

    Attributes:
        draining: True makes it say that it is not ready.
        refusing: True makes it refuse whoever asks a model.
        silences: its streamed answers, while they are silent.
    """

    def __init__(
        self,
        serving: Serving,
        limits: reading.GatewayLimits,
        door: Door | None = None,
        store: ResponseStore | None = None,
        *,
        cors: Cors | None = None,
    ) -> None:
        self.silences = Silences()
        self._serving = serving
        self._store = store or ResponseStore()
        self._conversations = Conversations(self._store)
        self._tenants: Tenants | None
        self._backing: Backing
        self._limits: reading.GatewayLimits
        self.change(limits, door or Door(), cors or Cors())
        self._answering: set[Exchange] = set()
        self._idle = trio.Event()
        self.draining = False
        self.refusing = False
        self._operations: Mapping[Action, Operation] = {
            Action.INDEX: self._index,
            Action.HEALTH: self._healthz,
            Action.READY: self._readyz,
            Action.OPENAPI: self._openapi,
            Action.MODELS: self._models,
            Action.MODEL: self._model,
        }

    def change(self, limits: reading.GatewayLimits, door: Door, cors: Cors) -> None:
        """Take other settings; requests that have been let in keep theirs.

        Args:
            limits: what is accepted.
            door: who is let in; another object than before, since what is known of
                a connection's heads is known by it.
            cors: which pages may read the answers.
        """
        self._limits, self._door, self._cors = limits, door, cors
        self._serving.key_ring.is_taken = door.takes_virtual_keys
        shares = limits.shared_references or not door.needs_key
        self._tenants = None if shares else Tenants(self._serving, self._store)
        self._backing = Backing(
            self._serving, self._conversations, self.silences, self._tenants
        )
        self.silences.change(limits.keepalive_s)

    @property
    def running(self) -> int:
        """Requests that are being answered."""
        return len(self._answering)

    async def idle(self) -> None:
        """Wait until no request is being answered."""
        while self._answering:
            self._idle = trio.Event()
            await self._idle.wait()

    def close(self) -> None:
        """Let go of the files; no request may follow."""
        self._store.close()

    def end_all(self) -> None:
        """End every running request with an error that its client is told.

        Does not wait for them: one may be stuck in a send to a client that
        reads nothing, and only closing its socket will free it.
        """
        for exchange in self._answering:
            exchange.interrupt()

    async def __call__(
        self, scope: asgi.Scope, receive: asgi.Receive, send: asgi.Send
    ) -> None:
        """Serve one HTTP request of an ASGI server's; a WebSocket is refused."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close"})  # a 403 to the client
            return
        await self.handle(asgi.AsgiExchange(scope, receive, send))

    async def handle(self, exchange: Exchange) -> None:
        """Serve one HTTP request."""
        try:
            await self._dispatch(exchange)
        except ClientGoneError:
            log.info("%s %s: the client left", exchange.method, exchange.path)
        finally:
            note_answer(self._serving.meters, exchange)

    async def _dispatch(self, exchange: Exchange) -> None:
        asked = asking(exchange, door=self._door, cors=self._cors)
        exchange.extra = (*asked.extra, CLOSE) if self.draining else asked.extra
        target = asked.target
        if not isinstance(target, Target):
            await self._unserved(exchange, asked.headers, target)
            return
        visitor = asked.visitor or self._door.admitted(asked.digest)
        if visitor is None:
            why = self._door.refusal(asked.headers, asked.query, asked.digest)
            more = (RETRY_SOON,) if why.status == _NOT_READY else ()
            await refuse(
                exchange, target.dialect, why.status, why.message, *more, code=why.code
            )
        else:
            await self._serve(exchange, target, asked, visitor)

    async def _serve(
        self, exchange: Exchange, target: Target, asked: Asking, visitor: Visitor
    ) -> None:
        if self.refusing and target.action in ASKS_A_MODEL:
            error = NotReadyError(
                "this node is draining: ask another one", retry_after_s=_ELSEWHERE_S
            )
            await answer_error(exchange, target.dialect, error, new_id())
            return
        match target.action:
            case Action.GENERATE:
                await self._generate(exchange, target, asked, visitor)
            case Action.EMBED:
                await self._whole(exchange, target, asked, visitor, whole.embeddings)
            case Action.COUNT_TOKENS:
                await self._whole(exchange, target, asked, visitor, whole.counts)
            case Action.TENSORS:
                await self._whole(exchange, target, asked, visitor, tensors)
            case Action.RESPONSE | Action.FORGET_RESPONSE:
                await self._stored(exchange, target, owner=visitor.owner)
            case action:
                await self._operations[action](exchange, target, visitor)

    async def _unserved(
        self,
        exchange: Exchange,
        headers: Mapping[str, str],
        target: NoRoute | WrongMethod,
    ) -> None:
        if isinstance(target, NoRoute):
            problem = f"there is no {exchange.path} here"
            await refuse(exchange, target.dialect, 404, problem)
        elif exchange.method == "OPTIONS":
            await self._options(exchange, headers, target.allow)
        else:
            allow = ", ".join(target.allow)
            problem = f"{exchange.path} takes {allow}, not {exchange.method}"
            more = (b"allow", allow.encode())
            await refuse(exchange, target.dialect, 405, problem, more)

    async def _options(
        self, exchange: Exchange, headers: Mapping[str, str], methods: tuple[str, ...]
    ) -> None:
        allow = ", ".join(methods).encode()
        more = self._cors.preflight(headers, allow)
        await exchange.start(204, [(b"allow", allow), *more])
        await exchange.end()

    async def _stored(
        self, exchange: Exchange, target: Target, *, owner: bytes
    ) -> None:
        """Show or forget a stored response."""
        name = target.model or ""
        try:
            if target.action is Action.RESPONSE:
                body = await self._conversations.fetch(name, owner=owner)
            else:
                await self._conversations.forget(name, owner=owner)
                gone = {"id": name, "object": "response", "deleted": True}
                body = msgspec.json.encode(gone)
        except InvalidRequestError as error:
            await refuse(exchange, target.dialect, 404, error.message, code=error.code)
        except InferenceError as error:
            await answer_error(exchange, target.dialect, error, new_id())
        else:
            await exchange.answer(200, body)

    # --- what people and operators call -------------------------------------

    async def _index(self, exchange: Exchange, _: Target, visitor: Visitor) -> None:
        names = self._serving.table.names()
        key = visitor.key
        members = {
            "name": "atomr-infer",
            "version": VERSION,
            "models": names if key is None else key.visible(names),
            "endpoints": endpoints(),
            "extensions": ["binary_tensor_data"],
        }
        await exchange.answer(200, msgspec.json.encode(members))

    async def _openapi(self, exchange: Exchange, *_: object) -> None:
        await exchange.answer(200, document())

    async def _healthz(self, exchange: Exchange, *_: object) -> None:
        await exchange.answer(200, b'{"status":"alive"}')

    async def _readyz(self, exchange: Exchange, *_: object) -> None:
        readiness = self._serving.readiness()
        ready = readiness.ready and not self.draining
        status = 200 if ready else 503
        members: dict[str, object] = {"ready": ready, "deployments": readiness.phases}
        told = {"not_ready": readiness.not_ready, "waits_for": readiness.waits_for}
        members |= {name: words for name, words in told.items() if words}
        if self.draining:
            members["draining"] = True
        await exchange.answer(status, msgspec.json.encode(members))

    async def _models(
        self, exchange: Exchange, target: Target, visitor: Visitor
    ) -> None:
        body = whole.model_list(self._serving, target.dialect, visitor.key)
        await exchange.answer(200, body)

    async def _model(
        self, exchange: Exchange, target: Target, visitor: Visitor
    ) -> None:
        key = visitor.key
        try:
            if key is not None:
                check_model(key, target.model or "")
            body = whole.model_object(self._serving, target.dialect, target.model or "")
        except InferenceError as error:
            told = discreet(error, visitor)
            await answer_error(exchange, target.dialect, told, new_id())
            return
        await exchange.answer(200, body)

    # --- inference ------------------------------------------------------------

    async def _generate(
        self, exchange: Exchange, target: Target, asked: Asking, visitor: Visitor
    ) -> None:
        call = await self._call(exchange, target, asked, visitor)
        if call is None:
            return
        ingress = INGRESSES[target.dialect]
        generation = Generation(
            self._backing,
            exchange,
            ingress=ingress,
            call=call,
        )
        await self._run(exchange, generation.run, generation.fail)

    async def _whole(
        self,
        exchange: Exchange,
        target: Target,
        asked: Asking,
        visitor: Visitor,
        answer: WholeRoute,
    ) -> None:
        """Answer with one value, whatever comes of it."""
        call = await self._call(exchange, target, asked, visitor)
        if call is None:
            return
        tell = partial(fail, exchange, target.dialect, call.request_id)
        read_at = trio.current_time()

        async def work() -> None:
            try:
                if self._tenants is not None and target.is_json:
                    await self._tenants.check(call, owner=visitor.owner)
                found = await answer(self._serving, call, target)
            except InferenceError as error:
                await tell(discreet(error, visitor))
            except Exception:
                log.exception("request %s: internal error", call.request_id)
                await tell(
                    InternalError(f"internal error; request id {call.request_id}")
                )
            else:
                more: Headers = ()
                if found.took_s is not None:
                    more = overhead_headers(
                        trio.current_time() - read_at - found.took_s
                    )
                await exchange.answer(200, found.body, [*found.headers, *more])

        await self._run(exchange, work, tell)

    async def _run(self, exchange: Exchange, work: Work, fail: Fail) -> None:
        async def stopped() -> None:
            await fail(NotReadyError("the server is shutting down"))

        self._answering.add(exchange)
        try:
            await exchange.run(work, stopped=stopped)
        finally:
            self._answering.discard(exchange)
            if self.refusing and not self._answering:
                self._idle.set()

    async def _call(
        self, exchange: Exchange, target: Target, asked: Asking, visitor: Visitor
    ) -> Call | None:
        """Read a request; None: it was refused."""
        try:
            body = await reading.read_body(
                exchange, asked.headers, self._limits, any_kind=not target.is_json
            )
        except reading.RefusedBodyError as error:
            await refuse(exchange, target.dialect, error.status, error.message)
            return None
        return Call(
            request_id=new_id(),
            body=body,
            headers=self._door.without(asked.headers, self._serving.key_headers),
            query=asked.query,
            model=target.model,
            action=target.verb,
            visitor=visitor,
        )
