"""How a model's requests become tokens, and its tokens the pieces of an answer."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING

from atomr_infer.errors import InvalidRequestError, UnsupportedFeatureError
from atomr_infer.model.asks import ToolMode
from atomr_infer.runtimes.decoding.answer import Answer, Ends
from atomr_infer.runtimes.decoding.generation import Generation
from atomr_infer.runtimes.decoding.sampling import Sampler, Settings, settings_of
from atomr_infer.runtimes.decoding.turns import tools_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from atomr_infer.model.batch import ExecuteBatch
    from atomr_infer.runtimes.decoding.chat import ChatTemplate
    from atomr_infer.runtimes.decoding.sampling import Constraint
    from atomr_infer.runtimes.decoding.tokenizer import Tokenizer

SAMPLING = frozenset(
    {
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
        "stop",
        "seed",
        "presence_penalty",
        "frequency_penalty",
        "n",
        "top_logprobs",
    }
)
"""What of a request's sampling has an effect."""


class Words:
    """How a model's requests become tokens, and its tokens text.

    Args:
        tokenizer: the model's.
        template: its chat template; None: it has none.
        ends: the tokens that end an answer.
        defaults: the sampling that its makers advise.
        drafts: tokens that a draft model may propose at once; 0: there is none.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        template: ChatTemplate | None,
        ends: frozenset[int],
        defaults: Settings,
        *,
        drafts: int = 0,
    ) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.ends = ends
        self.defaults = defaults
        self.drafts = drafts

    def prompt(self, batch: ExecuteBatch) -> list[int]:
        """Return a request's prompt as tokens; blocks for long ones.

        Raises:
            UnsupportedFeatureError: it holds what is not text, or is a chat and
                the model has no template.
            InvalidRequestError: the template refuses it, or it is empty.
        """
        if batch.prompt is not None:
            tokens = self.tokenizer.encode(batch.prompt, with_special=True)
        elif self.template is None:
            raise UnsupportedFeatureError(
                "this model has no chat template; ask it for a completion",
                code="unsupported_parameter",
                param="messages",
            )
        else:
            # The template writes the special tokens itself.
            text = self.template.render(batch.messages, tools_of(batch))
            tokens = self.tokenizer.encode(text, with_special=False)
        if not tokens:
            raise InvalidRequestError("the prompt is empty", param="messages")
        return tokens

    @property
    def calls_tools(self) -> bool:
        """Whether its model can be made to call tools."""
        return self.template is not None and bool(self.ends)

    def check_tools(self, batch: ExecuteBatch) -> None:
        """Refuse tools that the model may call in a way that is not known.

        Raises:
            UnsupportedFeatureError: it does.
        """
        choice = batch.tool_choice
        mode = ToolMode.AUTO if choice is None else choice.mode
        known = self.template is not None and self.template.marks_calls
        if batch.tools and mode is ToolMode.AUTO and not known:
            raise UnsupportedFeatureError(
                "this model writes tool calls in a way that is not known here; it "
                "calls tools where tool_choice requires it",
                code="unsupported_parameter",
                param="tools",
            )

    def begin(
        self,
        batch: ExecuteBatch,
        prompt: Sequence[int],
        *,
        room: int,
        wake: Callable[[], None],
        constraints: Callable[[], Constraint] | None = None,
    ) -> Generation:
        """Return a request's answers, of which none has a token yet.

        Args:
            batch: the request.
            prompt: its tokens.
            room: most tokens of an answer.
            wake: called when the engine may have something to do.
            constraints: makes what each answer must be like; None: anything.

        Raises:
            InvalidRequestError: a value is out of its range.
        """
        sampling = batch.sampling
        settings = settings_of(sampling, self.defaults)
        _check(settings, sampling.max_tokens)
        asked = sampling.max_tokens
        ends = Ends(
            tokens=self.ends,
            stops=sampling.stop,
            most=room if asked is None else min(asked, room),
        )
        given = sampling.seed
        seed = secrets.randbits(64) if given is None else given
        # A seed may be negative, and numpy's may not.
        seeds = (seed & (2**64 - 1), int(seed < 0))
        answers = [
            Answer(
                index,
                Sampler(
                    settings,
                    prompt,
                    (*seeds, index),
                    None if constraints is None else constraints(),
                ),
                ends,
                self.tokenizer,
                drafts=self.drafts,
                is_seeded=given is not None,
            )
            for index in range(sampling.n)
        ]
        return Generation(prompt, answers, ends.most, wake)


def _check(settings: Settings, max_tokens: int | None) -> None:
    """Refuse what the sampler cannot use.

    Raises:
        InvalidRequestError: names the value.
    """
    for name, value, is_allowed, allowed in (
        ("max_tokens", max_tokens, max_tokens is None or max_tokens >= 1, "at least 1"),
        ("temperature", settings.temperature, settings.temperature >= 0, "at least 0"),
        ("top_p", settings.top_p, 0 < settings.top_p <= 1, "above 0 and at most 1"),
        ("top_k", settings.top_k, settings.top_k >= 0, "at least 0"),
    ):
        if not is_allowed:
            raise InvalidRequestError(
                f"{name} is {value!r}; it must be {allowed}", param=name
            )
