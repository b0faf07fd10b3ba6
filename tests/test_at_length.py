"""``TIMES`` asks for more; what would ask for nothing is refused."""

from __future__ import annotations

import re

import pytest

from tests.at_length import number_of


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("20", 20)])
def test_it_says_how_many_times_as_much_is_drawn(text: str, number: int) -> None:
    assert number_of(text) == number


@pytest.mark.parametrize("text", ["", "0", "-1", "1.5", "many", "1_0"])
def test_what_would_draw_nothing_or_is_no_number_is_refused(text: str) -> None:
    said = re.escape(f"TIMES={text}: it must be a whole number of at least 1")
    with pytest.raises(ValueError, match=f"^{said}$"):
        number_of(text)
