"""The gateway answers as its own OpenAPI document says, whatever it is asked."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis.specs.openapi import checks as openapi_checks

from atomr_infer import blocking
from atomr_infer.gateway.api.openapi import ROUTES, document
from atomr_infer.gateway.exchanges.routes import Target, endpoints, find
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Iterator


def not_a_server_error(
    _: schemathesis.CheckContext, response: schemathesis.Response, __: Any
) -> None:
    """Fail at 5xx; but a model that embeds nothing says 501, as it shall."""
    assert response.status_code < 500 or response.status_code == 501


CHECKS: list[Any] = [
    not_a_server_error,
    openapi_checks.status_code_conformance,
    openapi_checks.content_type_conformance,
    openapi_checks.response_headers_conformance,
    openapi_checks.response_schema_conformance,
]

schema = schemathesis.openapi.from_dict(json.loads(document()))
# Every boundary of each member is asked for in test_openapi_at_length.py.
schema.config.phases.coverage.enabled = False


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with blocking.Cluster.connect("inproc://openapi") as cluster:
        cluster.deploy(Deployment(name="m", runtime="mock", serves=("m", "*")))
        yield cluster.serve("127.0.0.1:0").url


QUIET: dict[str, Any] = {"deadline": None, "suppress_health_check": list(HealthCheck)}


@schema.parametrize()
@settings(max_examples=6, **QUIET)
def test_every_answer_is_as_the_document_says(
    case: schemathesis.Case[Any], url: str
) -> None:
    case.call_and_validate(base_url=url, checks=CHECKS, timeout=20)


def test_the_document_has_every_route_and_no_other() -> None:
    documented = {f"{route.method.upper()} {route.path}" for route in ROUTES}
    unlisted = {"GET /", "GET /openapi.json"}
    assert documented == set(endpoints()) - unlisted


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.path)
def test_a_documented_route_is_found(route: object) -> None:
    method, path = route.method.upper(), route.path  # type: ignore[attr-defined]
    found = find(method, path.replace("{model}", "m").replace("{id}", "x"), {})
    assert isinstance(found, Target)
