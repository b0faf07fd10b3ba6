"""The page on the HTTP API lists the gateway's routes, all and no others."""

from __future__ import annotations

import re
from pathlib import Path

from atomr_infer.gateway.app import GatewayApp, GatewayLimits
from atomr_infer.serving.shared import Serving

PAGE = Path(__file__).parents[2] / "docs/reference/http-api.md"


async def test_the_routes_are_those_of_the_gateway() -> None:
    page = PAGE.read_text(encoding="utf-8")
    documented = set(re.findall(r"^\| `((?:GET|POST) \S+)` \|", page, re.MULTILINE))
    app = GatewayApp(Serving(), GatewayLimits())
    served = {
        f"{method} {path}" for path, routes in app._routes.items() for method in routes
    }

    assert documented == served | {"GET /v1/models/NAME"}
