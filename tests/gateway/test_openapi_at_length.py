"""The gateway answers as its OpenAPI document says: at every boundary, and drawn."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import settings

from atomr_infer.gateway.api.openapi import document
from tests.gateway.test_openapi import CHECKS, QUIET, url

__all__ = ["url"]

pytestmark = pytest.mark.slow

schema = schemathesis.openapi.from_dict(json.loads(document()))


@schema.parametrize()
@settings(max_examples=150, **QUIET)
def test_every_one_of_many_answers_is_as_the_document_says(
    case: schemathesis.Case[Any], url: str
) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20)
