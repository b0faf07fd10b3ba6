"""URLs become bytes for a model that fetches none, each once."""

from __future__ import annotations

import pytest

from atomr_infer.errors import InvalidRequestError
from atomr_infer.model.batch import ExecuteBatch, Message, Role
from atomr_infer.model.capabilities import Capabilities
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.parts import (
    ImagePart,
    Inline,
    TextPart,
    ToolResultPart,
    Url,
)
from atomr_infer.model.source import Source
from atomr_infer.serving.requests.inlining import inlined

PNG = Inline("image/png", "AA==")


async def test_what_the_model_does_not_fetch_is_fetched_once() -> None:
    asked = []

    async def fetch(url: str) -> Inline:
        asked.append(url)
        return PNG

    far = ImagePart(source=Url("https://x/a.png"), detail="low")
    near = ImagePart(source=Url("gs://bucket/b.png"))
    batch = ExecuteBatch(
        request_id="r",
        model="m",
        messages=(
            Message(Role.USER, (TextPart("see"), far, near, ImagePart(source=PNG))),
            Message(Role.TOOL, (ToolResultPart(call_id="c", content=(far,)),)),
        ),
        source=Source(Dialect.OPENAI_CHAT, b"{}", None),
    )
    capabilities = Capabilities(url_prefixes=("gs://",))

    found = await inlined(batch, capabilities, fetch)

    here = ImagePart(source=PNG, detail="low")
    assert found.messages == (
        Message(Role.USER, (TextPart("see"), here, near, ImagePart(source=PNG))),
        Message(Role.TOOL, (ToolResultPart(call_id="c", content=(here,)),)),
    )
    assert found.source is None
    assert asked == ["https://x/a.png"]


@pytest.mark.parametrize("name", ["https://x/{}.png", "https://x/same.png"])
async def test_what_is_too_much_together_is_not_fetched_to_its_end(name: str) -> None:
    asked = []
    large = Inline("image/png", "A" * (20 * 1024 * 1024))

    async def fetch(url: str) -> Inline:
        asked.append(url)
        return large

    parts = tuple(ImagePart(source=Url(name.format(i))) for i in range(1000))
    batch = ExecuteBatch(
        request_id="r", model="m", messages=(Message(Role.USER, parts),)
    )
    with pytest.raises(InvalidRequestError, match="too much together: at most 64 MiB"):
        await inlined(batch, Capabilities(), fetch)
    assert len(asked) == len({part.source for part in parts[:4]})
