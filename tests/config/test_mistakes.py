"""Whoever writes a file hears of all mistakes in it at once, in their order."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import examine_text, parse_config
from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.validate import examine_deployments, validate_deployments
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
    assert [line for line, _ in found] == [2, 5, 9, 11, 12, 15, 16, 18, 20, 23, 26, 29]
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
    assert [line for line, _ in told(VALUES)] == [
        *(2, 3, 8, 9, 12, 13, 14),
        *(16, 16, 17, 20),
    ]


@pytest.mark.parametrize(
    ("owner", "said"),
    [
        ('team = "nobody"', "there is no team 'nobody'; did you mean 'somebody'?"),
        ("team = 3", "team: 3 "),
        ('teem = "somebody"', "unknown key 'teem'; did you mean 'team'?"),
        ('key = ""', "key: "),
        ('team = "somebody"\nkey = "k"', "a budget is of a team or of a virtual key"),
        ("", "a budget is of a team or of a virtual key"),
    ],
)
def test_whose_a_budget_is_hides_no_mistake_of_how_much(owner: str, said: str) -> None:
    team = '[[team]]\nname = "somebody"\n'
    found = told(f'{team}[[budget]]\n{owner}\nusd = -1\nper = "dy"\n')
    whose, (_, usd), (_, per) = found
    assert said in whose[1]
    assert "usd" in usd
    assert "did you mean 'day'?" in per


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


def examined(text: str) -> list[tuple[int | None, str]]:
    """Return all that is wrong with a file, as its runtimes see it too."""
    mistakes = Mistakes()
    _, readings = examine_text(text, "f.toml", mistakes)
    examine_deployments(readings, mistakes)
    if not mistakes:
        return []
    with pytest.raises(ConfigError) as caught:
        mistakes.tell()
    return [(error.line, error.message) for error in caught.value.all]


HIDDEN = """\
[[deployment]]
name = "a"
runtime = "opnai"
[deployment.options]
endpont = "http://x"

[[deployment]]
name = "b"
runtime = "mock"
[deployment.options]
nonsense = 1
reply = 7
[deployment.retry]
max_attempts = 0
[deployment.rate_limits]
rpm = 1
mode = "sometimes"
[[deployment.budget]]
dollars = 1
[[deployment.budget]]
per = "dya"

[[deployment]]
name = "c"
runtime = "mock"
fallbacks = ["nobody", { to = "a", on = ["never"] }]

[[deployment]]
name = "d"
runtime = "router"
[deployment.options]
routes = [{ model = "nobodys", min_chars = 1 }]
default = "a"
"""


def test_what_a_runtime_refuses_hides_behind_no_mistake_of_the_file() -> None:
    found = examined(HIDDEN)
    lines = [line for line, _ in found]
    assert lines == [3, 5, 11, 12, 14, 16, 17, 18, 19, 21, 26, 31]
    assert "runtime 'openai': option 'endpont'" in found[1][1]
    assert "nobodys" in found[-1][1]


def without(text: str, *lines: int) -> str:
    kept = [t for n, t in enumerate(text.splitlines(), 1) if n not in lines]
    return "\n".join(kept) + "\n"


def test_a_file_whose_told_mistakes_are_mended_has_no_others() -> None:
    mended = HIDDEN.replace("opnai", "mock").replace("nobodys", "c")
    mended = mended.replace('{ to = "a", on = ["never"] }', '"b"')
    mended = mended.replace('"nobody", ', "").replace('"dya"', '"day"\nusd = 1.0')
    mended = mended.replace("rpm =", "requests_per_minute =")
    assert examined(without(mended, 5, 11, 12, 14, 17, 18, 19)) == []


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        # The name that is not readable may be the one that is asked for.
        ('name = 7\nruntime = "mock"', [2]),
        ('nam = "x"\nruntime = "mock"', [2]),
        ('name = "x"\nruntime = "mock"\nserves = "y"', [4]),
        ('name = "x"\nruntim = "mock"', [3]),
        ('name = "x"\nengine = "mock"', [3]),
        ('name = "x"\nruntime = "nobodys"\n[deployment.options]\nodd = 1', [3]),
        ('name = "x"\nruntime = "openai"\nmodel = 3', [4]),
    ],
)
def test_what_follows_from_a_mistake_is_not_told(text: str, lines: list[int]) -> None:
    asks = """
[[deployment]]
name = "r"
runtime = "router"
[deployment.options]
routes = [{ model = "y", min_chars = 1 }]
default = "x"
[[deployment]]
name = "m"
runtime = "mock"
fallbacks = ["x"]
[deployment.placement]
colocate_with = "x"
[[deployment.budget]]
per = "day"
usd = 1.0
downgrade_to = "y"
on_exceeded = "downgrade"
"""
    served = '[[deployment]]\nname = "y"\nruntime = "mock"\n'
    found = examined(
        f"[[deployment]]\n{text}\n{asks}{'' if 'serves' in text else served}"
    )
    assert [line for line, _ in found] == lines


def test_of_a_circle_one_tells() -> None:
    text = "".join(
        f'[[deployment]]\nname = "{name}"\nruntime = "mock"\nfallbacks = ["{to}"]\n'
        for name, to in ("ab", "bc", "ca", "de", "ed")
    )
    assert [line for line, _ in examined(text)] == [4, 16]


def test_of_more_than_fifty_mistakes_the_rest_is_counted() -> None:
    text = "[gateway]\n" + "".join(f"odd_{n} = 1\n" for n in range(63))
    with pytest.raises(ConfigError) as caught:
        parse_config(text, "f.toml")
    lines = str(caught.value).splitlines()
    assert (len(caught.value.all), len(lines)) == (63, 51)
    assert lines[49].startswith("f.toml:51: ")
    assert lines[50] == "and 13 more mistakes"


TWICE = """\
[[deployment]]
name = "a"
runtime = "mock"
fallbacks = ["b"]

[[deployment]]
name = "a"
runtime = "mock"
[deployment.options]
dely_s = 1
[deployment.retry]
max_attempts = 0

[[deployment]]
name = "b"
runtime = "mock"

[[deployment]]
name = "a"
runtime = "opnai"
fallbacks = ["a", 3]
"""


def test_a_name_that_is_used_already_hides_nothing_else_of_its_deployment() -> None:
    found = examined(TWICE)
    assert [line for line, _ in found] == [7, 10, 12, 19, 20, 21]
    assert "the name is used already, on line 2" in found[0][1]
    assert "did you mean 'delay_s'?" in found[1][1]


def test_of_a_name_that_is_used_already_nothing_follows() -> None:
    # It may be the one that `c` and the router mean; and it falls back to no circle.
    text = """\
[[deployment]]
name = "a"
runtime = "mock"
fallbacks = ["b", "c"]
[[deployment]]
name = "b"
runtime = "mock"
[[deployment]]
name = "b"
runtime = "mock"
fallbacks = ["a"]
[deployment.placement]
colocate_with = "a"
[[deployment]]
name = "r"
runtime = "router"
[deployment.options]
routes = [{ model = "c", min_chars = 1 }]
default = "a"
"""
    assert [line for line, _ in examined(text)] == [9]
