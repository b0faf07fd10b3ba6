"""Options of a cascade.

Pure.
"""

from __future__ import annotations

import attrs

from atomr_infer.errors import ConfigError
from atomr_infer.model.batch import FinishReason
from atomr_infer.model.validation import (
    InvalidValueError,
    at_least,
    non_empty,
    positive,
)
from atomr_infer.pipeline.asking.options import (
    from_table,
    is_pattern,
    is_target,
    names,
    one_of,
    tables,
)

_optional = attrs.validators.optional


def _reasons(
    _: object, field: attrs.Attribute[tuple[str, ...]], value: tuple[str, ...]
) -> None:
    known = [reason.value for reason in FinishReason]
    for each in value:
        if each not in known:
            raise InvalidValueError(field.name, each, f"is none of {', '.join(known)}")


def _number(_: object, field: attrs.Attribute[float], value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or value > 0:
        raise InvalidValueError(field.name, value, "is no number of at most 0")


@attrs.frozen(kw_only=True)
class Classifier:
    """A model that is asked whether an answer will do.

    Attributes:
        model: its public name.
        prompt: what it is asked; ``{question}`` and ``{answer}`` are put in.
        accept: how its reply begins when the answer will do, in any case.
        max_tokens: the most that it may reply.
    """

    model: str = attrs.field(validator=non_empty)
    prompt: str = attrs.field(
        default=(
            "Question:\n{question}\n\nAnswer:\n{answer}\n\n"
            "Is the answer correct and complete? Reply with yes or no only."
        ),
        validator=non_empty,
    )
    accept: str = attrs.field(default="yes", validator=non_empty)
    max_tokens: int = attrs.field(default=8, validator=at_least(1))


def _classifier(given: object) -> Classifier | None:
    if given is None:
        return None
    return from_table(Classifier, given, where="classifier")


@attrs.frozen(kw_only=True)
class CascadeStage:
    """One model of a cascade, and what its answer is judged by.

    An answer is accepted when nothing refuses it.  A refusal that the model itself
    declares, a form that the request asks for and the answer has not, and a text with
    nothing in it and no tool call are refused always.

    Attributes:
        model: the public name of who is asked.
        timeout_s: how long its answer may take; None: as long as the request.
        finish: the reasons to end that are accepted.
        min_chars: the least text, unless it calls tools.
        refusals: phrases that say no; one in the first 200 characters refuses the
            answer, in any case.
        json: whether the text must be JSON.
        matches: a pattern that must be found in the text.
        min_logprob: the least mean log probability of its tokens; the model is asked
            for them.
        validator: a function ``(batch, text)`` of your own, ``python:<module>:<name>``;
            it returns True, or why the answer will not do.
        classifier: a model that is asked whether the answer will do.
    """

    model: str = attrs.field(validator=non_empty)
    timeout_s: float | None = attrs.field(default=None, validator=_optional(positive))
    finish: tuple[str, ...] = attrs.field(
        default=("stop", "tool_calls", "content_filter"),
        converter=names,
        validator=_reasons,
    )
    min_chars: int = attrs.field(default=1, validator=at_least(0))
    refusals: tuple[str, ...] = attrs.field(default=(), converter=names)
    json: bool = attrs.field(
        default=False, validator=attrs.validators.instance_of(bool)
    )
    matches: str | None = attrs.field(default=None, validator=_optional(is_pattern))
    min_logprob: float | None = attrs.field(default=None, validator=_optional(_number))
    validator: str | None = attrs.field(default=None, validator=_optional(is_target))
    classifier: Classifier | None = attrs.field(default=None, converter=_classifier)

    def rules(self) -> tuple[str, ...]:
        """The members that judge, and are not as they are by default."""
        plain = CascadeStage(model=self.model, timeout_s=self.timeout_s)
        return tuple(
            field.name
            for field in attrs.fields(CascadeStage)
            if getattr(self, field.name) != getattr(plain, field.name)
        )


def _stages(given: object) -> tuple[CascadeStage, ...]:
    return tables(CascadeStage, given, where="stages")


@attrs.frozen(kw_only=True)
class CascadeOptions:
    """A cascade: who is asked, in which order, and when the next one is.

    Attributes:
        stages: at least two; each a table, or a model's name.
        stream: ``buffer``: an answer is judged before the client has any of it.
            ``commit``: it is judged by its first ``commit_chars``, and then streamed;
            what comes later cannot be taken back.
        commit_chars: see there.
        exhausted: what becomes of a request whose last stages fail when an earlier
            answer was not accepted: ``answer``: the client gets the latest of those,
            with a warning; ``error``: it gets the error.
    """

    stages: tuple[CascadeStage, ...] = attrs.field(converter=_stages)
    stream: str = attrs.field(default="buffer", validator=one_of("buffer", "commit"))
    commit_chars: int = attrs.field(default=200, validator=at_least(1))
    exhausted: str = attrs.field(default="answer", validator=one_of("answer", "error"))

    def __attrs_post_init__(self) -> None:
        if len(self.stages) < 2:
            raise ConfigError("stages must be two at least")
        last = self.stages[-1]
        if last.rules() and self.exhausted == "answer":
            raise ConfigError(
                f"stages: nobody is asked after {last.model!r}, whose answer is given "
                f"whatever it is; leave out {', '.join(last.rules())}, or say "
                'exhausted = "error"'
            )
        if self.stream == "commit":
            self._check_early()

    def _check_early(self) -> None:
        for stage in self.stages:
            late = {"json", "matches", "validator", "classifier"} & {*stage.rules()}
            if late:
                raise ConfigError(
                    f"stages: {min(late)!r} of {stage.model!r} judges a whole "
                    'answer; say stream = "buffer"'
                )

    def asks(self) -> tuple[str, ...]:
        """The models that may be asked, each once."""
        models = [stage.model for stage in self.stages]
        judges = [s.classifier.model for s in self.stages if s.classifier is not None]
        return tuple(dict.fromkeys((*models, *judges)))
