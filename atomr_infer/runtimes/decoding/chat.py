"""A conversation to the text that a model was trained to continue.

The template is the model's own: Jinja, from its files.  Such files are from
strangers, so it runs in Jinja's sandbox: it can neither reach Python's
internals nor change what it is given.
"""

from __future__ import annotations

import datetime as dt
import json
from typing import TYPE_CHECKING, Any, NoReturn

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from atomr_infer.errors import EngineStartError, InvalidRequestError
from atomr_infer.runtimes.decoding.calls import OPENS
from atomr_infer.runtimes.decoding.told_tools import in_words
from atomr_infer.runtimes.decoding.turns import turns_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from atomr_infer.model.batch import Message

_SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


# A template is a stranger's code, and computes with what the client wrote.
_REFUSALS = (
    TemplateError,
    TypeError,
    ValueError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
)


class ChatTemplate:
    """A model's chat template.

    Args:
        text: the template.
        tokenizer_config: names the special tokens that it may use.

    Attributes:
        knows_tools: whether it writes tools and calls itself.
        marks_calls: whether its model writes calls between marks that are known.

    Raises:
        EngineStartError: it is no template.
    """

    def __init__(self, text: str, tokenizer_config: Mapping[str, Any]) -> None:
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=["jinja2.ext.loopcontrols"],
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        self._special = {
            name: token
            for name in _SPECIAL
            if (token := special_token(tokenizer_config, name)) is not None
        }
        try:
            self._template = environment.from_string(text)
            named = find_undeclared_variables(environment.parse(text))
        except TemplateSyntaxError as error:
            raise EngineStartError(
                f"the model's chat template cannot be read: {error}"
            ) from error

        self.knows_tools = "tools" in named
        self.marks_calls = not self.knows_tools or OPENS in text

    def render(
        self, messages: Sequence[Message], tools: Sequence[dict[str, Any]] = ()
    ) -> str:
        """Return the text of a conversation, up to where the answer begins.

        Args:
            messages: the conversation.
            tools: what may be called, in OpenAI's form.

        Raises:
            UnsupportedFeatureError: a part is not text.
            InvalidRequestError: the template refuses the conversation.
        """
        turns = turns_of(tuple(messages))
        if not self.knows_tools:
            turns = in_words(turns, tools)
        try:
            return self._template.render(
                messages=turns,
                tools=[*tools] or None,
                add_generation_prompt=True,
                **self._special,
            )
        except _REFUSALS as error:
            raise InvalidRequestError(
                f"the model's chat template refuses the conversation: {error}",
                param="messages",
            ) from error


def special_token(tokenizer_config: Mapping[str, Any], name: str) -> str | None:
    """Return a special token's text; None when the model has none.

    >>> special_token({"eos_token": {"content": "</s>"}}, "eos_token")
    '</s>'
    """
    token = tokenizer_config.get(name)
    if isinstance(token, dict):
        token = token.get("content")
    return token if isinstance(token, str) else None


def _refuse(problem: str) -> NoReturn:
    raise TemplateError(problem)


def _strftime_now(form: str) -> str:
    return dt.datetime.now().astimezone().strftime(form)


def _to_json(value: object, indent: int | None = None) -> str:
    # Jinja's own escapes for HTML.
    return json.dumps(value, ensure_ascii=False, indent=indent)
