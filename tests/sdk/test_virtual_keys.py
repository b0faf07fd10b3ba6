"""The three official SDKs with a virtual key, in threads as scripts use them."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import anthropic
import openai
import pytest
import trio
from google import genai
from google.genai import errors, types

from atomr_infer.cluster import Cluster
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.virtual_key import VirtualKey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")

MOCK = Deployment(name="m", runtime="mock", serves=("m", "other"))
ASKED: Any = [{"role": "user", "content": "one two three"}]


def by_openai(url: str, key: str, model: str) -> tuple[str, list[str]]:
    with openai.OpenAI(api_key=key, base_url=f"{url}/v1", max_retries=0) as client:
        models = [each.id for each in client.models.list()]
        answer = client.chat.completions.create(model=model, messages=ASKED)
        return answer.choices[0].message.content or "", models


def by_anthropic(url: str, key: str, model: str) -> tuple[str, list[str]]:
    with anthropic.Anthropic(api_key=key, base_url=url, max_retries=0) as client:
        models = [each.id for each in client.models.list()]
        answer = client.messages.create(model=model, max_tokens=50, messages=ASKED)
        return "".join(b.text for b in answer.content if b.type == "text"), models


def by_google(url: str, key: str, model: str) -> tuple[str, list[str]]:
    options = types.HttpOptions(base_url=url)
    with genai.Client(api_key=key, http_options=options) as client:
        listed = client.models.list()
        models = [str(each.name).removeprefix("models/") for each in listed]
        answer = client.models.generate_content(model=model, contents="one two three")
        return answer.text or "", models


SDKS: Any = {
    "openai": (by_openai, openai.AuthenticationError, openai.PermissionDeniedError),
    "anthropic": (
        by_anthropic,
        anthropic.AuthenticationError,
        anthropic.PermissionDeniedError,
    ),
    "google": (by_google, errors.ClientError, errors.ClientError),
}


@asynccontextmanager
async def served() -> AsyncIterator[tuple[str, Cluster]]:
    async with Cluster.connect("inproc://sdk") as cluster:
        await cluster.deploy(MOCK)
        gateway = await cluster.serve("127.0.0.1:0", virtual_keys=True)
        yield gateway.url, cluster


@pytest.mark.parametrize("sdk", SDKS)
async def test_an_sdk_works_with_a_virtual_key_as_with_any(sdk: str) -> None:
    ask, unauthenticated, forbidden = SDKS[sdk]

    async def run(key: str, model: str = "m") -> tuple[str, list[str]]:
        # A client that hangs must fail its test and not the whole run.
        found: tuple[str, list[str]] = await trio.to_thread.run_sync(
            ask, url, key, model, abandon_on_cancel=True
        )
        return found

    with trio.fail_after(30):
        async with served() as (url, cluster):
            ring = cluster.key_ring
            terms = VirtualKey(id=ring.new_id(), name="ci", models=("m",))
            key = (await ring.create(terms)).secret.reveal()
            text, models = await run(key)
            assert text
            assert models == ["m"]
            with pytest.raises(forbidden, match="'ci' may not use the model 'other'"):
                await run(key, "other")
            new = (await ring.rotate("ci", grace_s=0)).secret.reveal()
            with pytest.raises(unauthenticated, match="'ci' has another secret"):
                await run(key)
            assert (await run(new))[0] == text
            await ring.revoke("ci")
            with pytest.raises(unauthenticated, match="'ci' was revoked at 2"):
                await run(new)
