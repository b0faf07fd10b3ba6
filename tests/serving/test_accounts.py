"""Keys are told apart by what says nothing of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import pytest

from atomr_infer.errors import MissingSecretError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    Secret,
)
from atomr_infer.serving.deployments.accounts import account_of

if TYPE_CHECKING:
    from pathlib import Path

    from atomr_infer.model.secret import SecretSource

PLAIN = Deployment(name="m", runtime="openai")
ENVIRON = {"A": "sk-a-0123456789", "B": "sk-b-0123456789", "A_TOO": "sk-a-0123456789"}


def account(source: SecretSource | None) -> str:
    return account_of(attrs.evolve(PLAIN, credential=source), ENVIRON)


def pool(*names: str) -> str:
    keys = tuple(EnvSecret(name) for name in names)
    return account_of(attrs.evolve(PLAIN, credentials=keys), ENVIRON)


def test_one_key_is_one_account_wherever_it_is_found(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("sk-a-0123456789\n")
    sources: list[SecretSource] = [
        EnvSecret("A"),
        EnvSecret("A_TOO"),
        FileSecret(str(file)),
        Secret("sk-a-0123456789"),
    ]
    [known] = {account(source) for source in sources}
    assert account(EnvSecret("B")) != known
    assert account_of(attrs.evolve(PLAIN, name="other"), ENVIRON) == account(None)


def test_several_keys_are_one_account_in_any_order() -> None:
    assert pool("A", "B") == pool("B", "A") == pool("B", "A", "A_TOO")
    assert pool("A", "B") != pool("A")
    assert pool("A") == account(EnvSecret("A"))


def test_an_account_says_nothing_of_the_key() -> None:
    found = account(EnvSecret("A"))
    assert len(found) == 16
    assert "sk" not in found


def test_a_key_that_is_not_ours_is_known_by_where_it_comes_from() -> None:
    fetched = PluginSecret("oauth2", {"client_id": "x"})
    accounts = {
        account(None),
        account(HeaderSecret("x-key")),
        account(fetched),
        account(PluginSecret("oauth2", {"client_id": "y"})),
    }
    assert len(accounts) == 4
    assert account(fetched) == account(PluginSecret("oauth2", {"client_id": "x"}))


def test_a_key_that_is_not_there_is_said_so() -> None:
    with pytest.raises(MissingSecretError, match="NOWHERE"):
        account(EnvSecret("NOWHERE"))
