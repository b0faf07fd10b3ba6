"""What `serve` prints when it is ready."""

from __future__ import annotations

import pytest

from atomr_infer.cli.output.banner import print_banner
from atomr_infer.cli.plan import ServePlan
from atomr_infer.cli.trial import Trial
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import Secret
from tests.cli.serving.test_serve import printed_curl


@pytest.mark.parametrize(
    ("keys", "virtual", "pattern", "hint"),
    [
        ((), False, "m", ""),
        (("abc",), False, "m", ", with a key of this gateway for KEY"),
        ((), True, "m", ", with a key that `atomr-infer keys create` makes for KEY"),
        (
            (),
            True,
            "m-*",
            ", with a model's name that fits m-* for MODEL"
            " and a key that `atomr-infer keys create` makes for KEY",
        ),
    ],
)
def test_where_a_key_is_needed_the_printed_request_shows_one(
    capsys: pytest.CaptureFixture[str],
    keys: tuple[str, ...],
    virtual: bool,
    pattern: str,
    hint: str,
) -> None:
    plan = ServePlan(
        deployments=(Deployment(name="m", runtime="mock", serves=(pattern,)),),
        gateway=GatewayConfig(virtual_keys=virtual),
        source="here",
        keys=tuple(map(Secret, keys)),
    )
    print_banner(plan, "http://0.0.0.0:8080", {})
    out = capsys.readouterr().out
    assert f"Try it{hint}:\n" in out
    needs = bool(keys) or virtual
    assert ("authorization: Bearer KEY" in printed_curl(out)) is needs
    assert ("anyone who can reach this address can use it" in out) is not needs


@pytest.mark.parametrize(
    ("url", "environment", "command"),
    [
        ("http://127.0.0.1:8080", {"A": "k"}, "A=k atomr-infer status"),
        ("http://127.0.0.1:8080", {}, "atomr-infer status"),
        ("http://[::1]:80", {}, "atomr-infer status --url 'http://[::1]:80'"),
    ],
)
def test_where_operators_can_try_it_the_command_is_shown(
    capsys: pytest.CaptureFixture[str],
    url: str,
    environment: dict[str, str],
    command: str,
) -> None:
    plan = ServePlan(
        deployments=(Deployment(name="m", runtime="mock"),),
        gateway=GatewayConfig(),
        source="here",
        trial=Trial(Secret("k"), environment),
    )
    print_banner(plan, url, {})
    shown = f"\n\nLook at it:\n\n  {command}\n\nCtrl-C stops.\n"
    assert capsys.readouterr().out.endswith(shown)
