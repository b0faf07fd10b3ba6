"""The keys credential and credentials: every form, and every mistake with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    SecretSource,
)

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment

HEAD = '[[deployment]]\nname = "a"\nruntime = "mock"\n'


def parsed(text: str) -> Deployment:
    return parse_config(HEAD + text, "/etc/atomr/atomr.toml").deployments[0]


def failure(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(HEAD + text, "a.toml")
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ('credential = { env = "KEY" }', EnvSecret("KEY")),
        ('credential = { file = "keys/one" }', FileSecret("/etc/atomr/keys/one")),
        ('credential = { header = "X-Upstream-Key" }', HeaderSecret("x-upstream-key")),
        ('credential = { provider = "google" }', PluginSecret("google")),
        (
            '[deployment.credential]\nprovider = "oauth2"\nclient_id = "g"\n'
            'client_secret = { env = "S" }\nkey = { file = "k.json" }\n'
            'token_url = "https://l.example/t"\nextra = { env = "E", x = 1 }\n',
            PluginSecret(
                "oauth2",
                {
                    "client_id": "g",
                    "client_secret": EnvSecret("S"),
                    "key": FileSecret("/etc/atomr/k.json"),
                    "token_url": "https://l.example/t",
                    "extra": {"env": "E", "x": 1},
                },
            ),
        ),
    ],
)
def test_a_credential_names_one_place(text: str, source: SecretSource) -> None:
    assert parsed(text).credential == source
    if isinstance(source, PluginSecret):
        found = parsed(text).credential
        assert isinstance(found, PluginSecret)
        assert found.options == source.options


def test_credentials_are_a_pool_with_weights() -> None:
    text = 'credentials = [{ env = "A", weight = 3 }, { file = "b" }]'
    assert parsed(text).credentials == (
        PooledSecret(EnvSecret("A"), 3),
        PooledSecret(FileSecret("/etc/atomr/b")),
    )


FIX = 'write credential = { env = "NAME_OF_A_VARIABLE" } or { file = "PATH" }'
POOL_FIX = 'write credentials = [{ env = "NAME" }, { env = "OTHER" }]'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('credential = { header = "Cookie" }',
         "credential: header: 'cookie' is a header that holds no key"),
        ('credential = { header = "a b" }',
         "credential: header: 'a b' is not the name of a header"),
        ('credential = { provider = "a b" }',
         "credential: provider: 'a b' is not a name; use letters, digits and "
         ". _ - / :"),
        ('credential = { env = "A", scope = "x" }',
         "credential: unknown key 'scope'; use env"),
        ('credential = { env = "A", provider = "google" }',
         f"credential needs one source; {FIX}"),
        ('credentials = "sk-s3cret"', f"credentials is no array of tables; {POOL_FIX}"),
        ("credentials = []", f"credentials is no array of tables; {POOL_FIX}"),
        ('credentials = ["sk-s3cret"]',
         f"a credential does not belong in this file; {POOL_FIX}"),
        ('credentials = [{ env = "A" }, { header = "x-key" }]',
         "credentials[1]: a pool holds our own keys, not a client's header"),
        ('credentials = [{ env = "A", weight = 0 }]',
         "credentials[0]: weight: 0 must be at least 1"),
        ('credentials = [{ env = "A", wieght = 2 }]',
         "credentials[0]: unknown key 'wieght'; use env"),
        ("credentials = [{}]", f"credentials needs one source; {FIX}"),
        ('credential = { env = "A" }\ncredentials = [{ env = "B" }]',
         "credentials: (PooledSecret(source=EnvSecret(variable='B'), weight=1),) "
         "stands beside credential; write one of the two"),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence_with_its_line(text: str, said: str) -> None:
    line = 5 if "\n" in text else 4
    message = failure(text + "\n")
    assert message == f"a.toml:{line}: deployment 'a': {said}"
    assert "s3cret" not in message
