"""A model's own template writes the prompt, in a sandbox."""

from __future__ import annotations

import pytest

from atomr_infer.errors import (
    EngineStartError,
    InvalidRequestError,
    UnsupportedFeatureError,
)
from atomr_infer.model.batch import Message, RawPart, Role
from atomr_infer.model.parts import (
    ReasoningPart,
    TextPart,
    ToolCallPart,
    ToolResultPart,
)
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


def test_arguments_that_are_nested_too_deeply_to_be_read_stay_text() -> None:
    deep = "[" * 5000
    call = ToolCallPart(id="c", name="f", arguments=deep)
    template = "{{ tools }}{{ messages[0].tool_calls[0].function.arguments }}"
    text = ChatTemplate(template, SAYS).render((Message(Role.ASSISTANT, (call,)),))
    assert text == f"None{deep}"


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


# --- tools ----------------------------------------------------------------------

LOOK = {
    "type": "function",
    "function": {"name": "look", "description": "", "parameters": {"type": "object"}},
}
CALLED = (
    Message(Role.SYSTEM, "be brief"),
    Message(Role.USER, "a"),
    Message(
        Role.ASSISTANT,
        (TextPart("hm"), ToolCallPart(id="c", name="look", arguments='{"at": 1}')),
    ),
    Message(Role.TOOL, (ToolResultPart(call_id="c", content=(TextPart("<b>"),)),)),
)


def test_a_template_that_knows_tools_writes_them_itself() -> None:
    template = (
        "{{ tools | tojson }}{% for m in messages %}|{{ m.role }} {{ m.content }}"
        "{% for call in m.tool_calls %}<tool_call>{{ call.function.name }} "
        "{{ call.function.arguments.at }}{% endfor %}{% endfor %}"
    )
    made = ChatTemplate(template, SAYS)
    assert (made.knows_tools, made.marks_calls) == (True, True)
    assert made.render(CALLED, [LOOK]) == (
        '[{"type": "function", "function": {"name": "look", "description": "", '
        '"parameters": {"type": "object"}}}]|system be brief|user a|assistant hm'
        "<tool_call>look 1|tool <b>"
    )


def test_a_model_whose_template_knows_no_tools_is_told_of_them() -> None:
    made = ChatTemplate(CHATML, SAYS)
    assert (made.knows_tools, made.marks_calls) == (False, True)
    text = made.render(CALLED, [LOOK])
    system, user, assistant, result, rest = text.split("</s>")
    assert system.startswith("<|system|>be brief\n\nYou can call functions.")
    assert '{"name":"look","description":"","parameters":{"type":"object"}}' in system
    assert user == "<|user|>a"
    assert assistant == (
        '<|assistant|>hm\n<tool_call>{"name":"look","arguments":{"at":1}}</tool_call>'
    )
    assert result == "<|user|><tool_response>\n<b>\n</tool_response>"
    assert rest == "<|assistant|>"
    first = made.render(CALLED[1:2], [LOOK])
    assert first.startswith("<|system|>You can call functions.")
    assert made.render(CALLED[1:2]) == "<|user|>a</s><|assistant|>"


def test_calls_in_a_way_that_is_not_known_are_not_looked_for() -> None:
    made = ChatTemplate("{% if tools %}[TOOLS]{{ tools }}{% endif %}", SAYS)
    assert (made.knows_tools, made.marks_calls) == (True, False)
    # The word alone is no tool.
    assert not ChatTemplate("Use your tools.", SAYS).knows_tools
