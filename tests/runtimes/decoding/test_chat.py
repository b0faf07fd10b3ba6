"""A model's own template writes the prompt, in a sandbox."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    EngineStartError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import Message, RawPart, Role
from atomr_infer.model.parts import ReasoningPart, TextPart
from atomr_infer.runtimes.decoding.chat import ChatTemplate

SAYS = {"bos_token": "<s>", "eos_token": {"content": "</s>"}}
CHATML = (
    "{% for message in messages %}\n"
    "    {{- '<|' + message['role'] + '|>' + message['content'] + eos_token -}}\n"
    "{% endfor %}\n"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def test_a_conversation_is_written_as_the_template_says() -> None:
    messages = (
        Message(Role.DEVELOPER, "be brief"),
        Message(Role.USER, (TextPart("a"), TextPart("b"))),
        Message(Role.ASSISTANT, (ReasoningPart(text="hm"), TextPart("c"))),
    )
    assert ChatTemplate(CHATML, SAYS).render(messages) == (
        "<|system|>be brief</s><|user|>ab</s><|assistant|>c</s><|assistant|>"
    )


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[7].content.x }}", "list object has no element 7"),
        ("{{ messages.append(1) }}", "is unsafe"),
        ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "__class__"),
        ("{% for a in range(1000000000) %}x{% endfor %}", "Range too big"),
        ("{{ 1 / 0 }}", "division by zero"),
    ],
)
def test_what_a_template_refuses_is_the_client_s(template: str, problem: str) -> None:
    with pytest.raises(InvalidRequestError, match=problem) as caught:
        ChatTemplate(template, SAYS).render((Message(Role.USER, "a"),))
    assert caught.value.param == "messages"


def test_helpers_of_templates_are_there() -> None:
    template = (
        "{{ strftime_now('%Y')[:2] }}{{ {'a': '<é>'}|tojson }}"
        "{% for a in [1, 2] %}{% if a == 2 %}{% break %}{% endif %}{{ a }}{% endfor %}"
    )
    assert ChatTemplate(template, SAYS).render(()) == '20{"a": "<é>"}1'


def test_what_is_no_template_stops_the_start() -> None:
    with pytest.raises(EngineStartError, match="chat template cannot be read"):
        ChatTemplate("{% for %}", SAYS)


def test_a_part_that_is_not_text_is_refused() -> None:
    message = Message(Role.USER, (RawPart("image_url", b"{}"),))
    with pytest.raises(UnsupportedFeatureError, match="not RawPart"):
        ChatTemplate(CHATML, SAYS).render((message,))
