"""The page on the HTTP API lists the gateway's routes, all and no others."""

from __future__ import annotations

import re
from pathlib import Path

from atomr_infer.gateway.exchanges.routes import endpoints

PAGE = Path(__file__).parents[2] / "docs/reference/http-api.md"


def test_the_routes_are_those_of_the_gateway() -> None:
    page = PAGE.read_text(encoding="utf-8")
    pattern = r"^\| `((?:GET|POST|DELETE) \S+)` \|"

    assert re.findall(pattern, page, re.MULTILINE) == list(endpoints())
