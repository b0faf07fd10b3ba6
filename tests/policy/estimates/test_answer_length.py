"""What becomes of a request that does not say how long its answer may be."""

from __future__ import annotations

import attrs
import pytest

from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.source import Source
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.policy.estimates.answer_length import bounded
from atomr_infer.policy.lifecycle.replaced import keeps_engine

SAYS = Deployment(name="m", runtime="mock", default_max_tokens=77)
SILENT = Deployment(name="m", runtime="mock")
ASKED = ExecuteBatch(
    request_id="r",
    model="m",
    messages=(Message(Role.USER, "hi"),),
    sampling=Sampling(top_k=3),
    source=Source(Dialect.OPENAI_CHAT, b"{}", "m"),
)


def test_it_is_asked_for_as_its_deployment_says_and_not_by_its_own_bytes() -> None:
    asked = attrs.evolve(ASKED, sampling=Sampling(top_k=3, max_tokens=77), source=None)
    assert bounded(ASKED, SAYS) == asked
    assert bounded(asked, SAYS) is asked


@pytest.mark.parametrize(
    ("batch", "deployment"),
    [
        (ASKED, SILENT),
        (attrs.evolve(ASKED, sampling=Sampling(max_tokens=500)), SAYS),
        # Nothing can be added to what only its bytes say.
        (attrs.evolve(ASKED, only_passed="token ids"), SAYS),
    ],
)
def test_what_has_a_bound_or_can_have_none_stays_as_it_is(
    batch: ExecuteBatch, deployment: Deployment
) -> None:
    assert bounded(batch, deployment) is batch


def test_it_is_changed_while_it_serves() -> None:
    for is_client in (False, True):
        assert keeps_engine(SILENT, SAYS, is_client=is_client)


def test_a_bound_of_nothing_is_none() -> None:
    with pytest.raises(InvalidValueError, match="default_max_tokens"):
        Deployment(name="m", runtime="mock", default_max_tokens=0)
