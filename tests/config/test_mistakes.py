"""Whoever writes a file hears of all mistakes in it at once, in their order."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.validate import validate_deployments
from atomr_infer.errors import ConfigError, PluginError

WRONG = """\
[gateway]
prot = 1

[node]
roles = "gpu"

[[deployment]]
name = "a"
runtim = "mock"
runtime = "mock"
serves = "x"
budget = 3

[deployment.retry]
attempts = 1
tries = 3

[[deployment]]
name = "b"
credential = { env = "A", file = "b" }

[deployment.rate_limits]
rpm = 3

[[team]]
nam = 1

[[team]]
name = ""
"""


def told(text: str) -> list[tuple[int | None, str]]:
    """Return the line and the last words of each mistake."""
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f.toml")
    assert str(caught.value).splitlines() == [e.told for e in caught.value.all]
    return [(error.line, error.message) for error in caught.value.all]


def test_each_mistake_is_told_with_its_line_in_the_order_of_the_file() -> None:
    found = told(WRONG)
    assert [line for line, _ in found] == [2, 5, 9, 11, 12, 15, 16, 18, 20, 23, 25, 29]
    assert "unknown key 'prot'" in found[0][1]
    assert "did you mean 'runtime'?" in found[2][1]
    assert "deployment 'b': runtime is missing" in found[7][1]


VALUES = """\
[gateway]
drain_timeout_s = -1
max_body_bytes = "x"

[[deployment]]
name = "b"
runtime = "mock"
default_max_tokens = "many"
interpreter = 7

[deployment.timeouts]
load_s = "q"
idle_s = -1
idle = 3

[[budget]]
foo = 1

[[budget]]
team = "nobodys"
usd = 1.0
per = "day"
"""


def test_each_value_is_looked_at_whatever_the_others_are() -> None:
    assert [line for line, _ in told(VALUES)] == [2, 3, 8, 9, 12, 13, 14, 16, 20]


def test_one_mistake_has_no_others() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_config("[gateway]\nprot = 1\n", "f.toml")
    assert caught.value.more == ()


def test_what_depends_on_what_is_wrong_is_not_complained_of() -> None:
    # Neither the team that is not readable nor the deployment is called unknown.
    text = """\
[[deployment]]
name = "a"
runtime = "mock"
tiems = 1

[[deployment]]
name = "b"
runtime = "mock"
fallbacks = ["a"]

[[team]]
name = "t"
x = 1

[[budget]]
team = "t"
usd = 1.0
per = "day"
"""
    assert [line for line, _ in told(text)] == [4, 13]


def test_each_runtime_is_asked() -> None:
    config = parse_config(
        '[[deployment]]\nname = "a"\nruntime = "nobodys"\n'
        '[[deployment]]\nname = "b"\nruntime = "mock"\n[deployment.options]\nx = 1\n'
        '[[deployment]]\nname = "c"\nruntime = "nobodys"\n',
        "f.toml",
    )
    with pytest.raises(PluginError) as caught:
        validate_deployments(config.deployments, origin=config.origin)
    assert [error.line for error in caught.value.all] == [3, 8, 11]


def test_a_key_in_the_file_hides_nothing_else_of_its_table() -> None:
    text = '[gateway]\nadmin_key = "plain"\nkeyz = 1\nmax_body_bytes = "x"\n'
    assert [line for line, _ in told(text)] == [2, 3, 4]
