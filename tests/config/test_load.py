"""A configuration file becomes a Config, or one sentence with its line."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.load import Config, load_config, parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import (
    Deployment,
    Jitter,
    RetryPolicy,
    Serving,
    Timeouts,
)
from atomr_infer.model.secret import EnvSecret, FileSecret

if TYPE_CHECKING:
    from pathlib import Path

FULL = """\
[gateway]
bind = "[::]:9000"
drain_timeout_s = 5
max_body_bytes = 1024
write_timeout_s = 2.5

[[deployment]]
name = "gpt"
runtime = "openai"
model = "gpt-5"
serves = ["gpt-5", "gpt-*"]
credential = { env = "OPENAI_API_KEY" }
[deployment.serving]
replicas = 2
max_concurrency = 16
max_queue = 0
queue_timeout_s = 1.5
[deployment.timeouts]
load_s = 1
silent_s = 1.5
connect_s = 2
first_token_s = 3
idle_s = 4
total_s = 5
[deployment.retry]
max_attempts = 1
backoff_s = 0.5
max_backoff_s = 4
jitter = "none"
idempotent = false
[deployment.options]
base_url = "http://localhost:1"
nested = { list = [1, 2] }

[[deployment]]
name = "local"
runtime = "mock"
credential.file = "keys/one"
"""


def test_every_key_reaches_its_field(tmp_path: Path) -> None:
    file = tmp_path / "atomr.toml"
    file.write_text(FULL)

    assert load_config(file) == Config(
        gateway=GatewayConfig(
            bind="[::]:9000",
            drain_timeout_s=5,
            max_body_bytes=1024,
            write_timeout_s=2.5,
        ),
        deployments=(
            Deployment(
                name="gpt",
                runtime="openai",
                model="gpt-5",
                serves=("gpt-5", "gpt-*"),
                credential=EnvSecret("OPENAI_API_KEY"),
                options={"base_url": "http://localhost:1", "nested": {"list": [1, 2]}},
                serving=Serving(
                    replicas=2, max_concurrency=16, max_queue=0, queue_timeout_s=1.5
                ),
                timeouts=Timeouts(
                    load_s=1,
                    silent_s=1.5,
                    connect_s=2,
                    first_token_s=3,
                    idle_s=4,
                    total_s=5,
                ),
                retry=RetryPolicy(
                    max_attempts=1,
                    backoff_s=0.5,
                    max_backoff_s=4,
                    jitter=Jitter.NONE,
                    idempotent=False,
                ),
            ),
            Deployment(
                name="local",
                runtime="mock",
                credential=FileSecret(str(tmp_path / "keys" / "one")),
            ),
        ),
    )


def test_an_empty_file_is_all_defaults() -> None:
    assert parse_config("", "x.toml") == Config(
        gateway=GatewayConfig(
            bind="127.0.0.1:8080",
            drain_timeout_s=30.0,
            max_body_bytes=33_554_432,
            write_timeout_s=60.0,
        ),
        deployments=(),
    )


def test_an_absolute_credential_file_stays_where_it_is() -> None:
    text = '[[deployment]]\nname="a"\nruntime="mock"\ncredential={file="/run/key"}\n'

    [deployment] = parse_config(text, "some/folder/x.toml").deployments

    assert deployment.credential == FileSecret("/run/key")


@pytest.mark.parametrize(
    ("bind", "host", "port"),
    [
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("localhost:0", "localhost", 0),
        ("[fe80::1%eth0]:65535", "fe80::1%eth0", 65535),
    ],
)
def test_bind_is_host_and_port(bind: str, host: str, port: int) -> None:
    gateway = GatewayConfig(bind=bind)

    assert (gateway.host, gateway.port) == (host, port)


A = '[[deployment]]\nname = "a"\nruntime = "mock"\n'
FIX = 'write credential = { env = "NAME_OF_A_VARIABLE" } or { file = "PATH" }'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        # --- unknown keys ---
        ("[gatewy]\n", "1: unknown key 'gatewy'; did you mean 'gateway'?"),
        ("[[deployments]]\n", "1: unknown key 'deployments'; "
         "did you mean 'deployment'?"),
        ("x = 1\n", "1: unknown key 'x'; use gateway, node, cluster, deployment, "
         "team, budget"),
        ('[gateway]\nwatch = "yes"\n', "2: gateway: watch is a string, "
         "not true or false"),
        ("[gateway]\n\nbnd = 1\n", "3: gateway: unknown key 'bnd'; "
         "did you mean 'bind'?"),
        (A + "modle = 1\n", "4: deployment 'a': unknown key 'modle'; "
         "did you mean 'model'?"),
        (A + '# sk-1\napi_key = "sk-1"\n', "5: deployment 'a': unknown key 'api_key'; "
         f"a key does not belong in this file; {FIX}"),
        (A + "replicas = 2\n", "4: deployment 'a': unknown key 'replicas'; "
         "it belongs under [deployment.serving]"),
        (A + "[deployment.serving]\nreplica = 2\n", "5: deployment 'a': serving: "
         "unknown key 'replica'; did you mean 'replicas'?"),
        (A + "retry.backof_s = 2\n", "4: deployment 'a': retry: "
         "unknown key 'backof_s'; did you mean 'backoff_s'?"),
        # --- missing keys ---
        ('\n[[deployment]]\nruntime = "x"\n', "2: deployment: name is missing; "
         "every [[deployment]] needs it"),
        ('[[deployment]]\nname = "x"\n', "1: deployment 'x': runtime is missing, "
         "and none is known for the model 'x'; see: atomr-infer runtimes"),
        # --- wrong types ---
        ("gateway = 1\n", "1: gateway is a number, not a table"),
        ("[[gateway]]\n", "1: gateway is an array, not a table"),
        ("[deployment]\nname = 'x'\n", "1: write [[deployment]], "
         "with two brackets"),
        ("deployment = 'x'\n", "1: deployment is a string; "
         "write [[deployment]] tables"),
        ("deployment = [\n{name='a',runtime='b'},\n1]\n", "3: deployment holds "
         "a number; write [[deployment]] tables"),
        ("[gateway]\nbind = 8080\n", "2: gateway: bind: 8080 is not an address "
         'such as "127.0.0.1:8080"'),
        ("[gateway]\nmax_body_bytes = 1.5\n", "2: gateway: max_body_bytes: 1.5 "
         "is not a whole number"),
        ('[gateway]\ndrain_timeout_s = "5s"\n', "2: gateway: drain_timeout_s: '5s' "
         "is not a number"),
        ('[[deployment]]\nname = 3\nruntime = "x"\n', "2: deployment: name: 3 "
         "is not a string"),
        (A + 'serves = "gpt-4"\n', "4: deployment 'a': serves is a string, "
         'not an array; write ["gpt-4"]'),
        (A + "serves = true\n", "4: deployment 'a': serves is true or false, "
         "not an array"),
        (A + 'serves = ["x", 1]\n', "4: deployment 'a': serves: 1 is not a string"),
        (A + "options = 1979-05-27\n", "4: deployment 'a': options is a date or time, "
         "not a table"),
        (A + "serving = 1\n", "4: deployment 'a': serving is a number, not a table"),
        (A + "retry.idempotent = 'no'\n", "4: deployment 'a': retry: idempotent is "
         "a string, not true or false"),
        # --- out of range ---
        ('[gateway]\nbind = "x:65536"\n', "2: gateway: bind: 'x:65536' "
         'is not an address such as "127.0.0.1:8080"'),
        ('[gateway]\nbind = "::1:80"\n', "2: gateway: bind: '::1:80' "
         'is not an address such as "127.0.0.1:8080"'),
        ("[gateway]\nwrite_timeout_s = inf\n", "2: gateway: write_timeout_s: inf "
         "must be a number above 0"),
        ('[[deployment]]\nruntime = "x"\nname = "a b"\n', "3: deployment 'a b': "
         "name: 'a b' is not a name; use letters, digits and . _ - / :"),
        (A + "[deployment.serving]\n\nreplicas = 0\n", "6: deployment 'a': serving: "
         "replicas: 0 must be at least 1"),
        (A + "timeouts = { load_s = 5, idle_s = -1 }\n", "4: deployment 'a': timeouts: "
         "idle_s: -1 must be a number above 0"),
        (A + "retry.max_attempts = 21\n", "4: deployment 'a': retry: max_attempts: 21 "
         "must be at most 20"),
        (A + "retry.jitter = 'some'\n", "4: deployment 'a': retry: jitter: 'some' "
         "is not allowed; use 'full' or 'equal' or 'none'"),
        # --- credentials ---
        (A + 'credential = "sk-secret"\n', "4: deployment 'a': a credential does not "
         f"belong in this file; {FIX}"),
        (A + "credential = 5\n", "4: deployment 'a': a credential does not "
         f"belong in this file; {FIX}"),
        (A + "credential = {}\n", "4: deployment 'a': credential needs one source; "
         f"{FIX}"),
        (A + 'credential = { env = "A", file = "b" }\n', "4: deployment 'a': "
         f"credential needs one source; {FIX}"),
        (A + 'credential = { evn = "A" }\n', "4: deployment 'a': credential: "
         "unknown key 'evn'; did you mean 'env'?"),
        (A + '[deployment.credential]\nenv = " "\n', "5: deployment 'a': credential: "
         "env must be a string that is not empty"),
        (A + "credential.file = 3\n", "4: deployment 'a': credential: "
         "file must be a string that is not empty"),
        # --- the whole file ---
        (A + A, "5: deployment 'a': the name is used already, on line 2; "
         "every deployment needs its own"),
        ("a = 1\nb = = 2\n", "2: not valid TOML: 'b' is followed by '=', which is no "
         'value; text stands in quotes, as in name = "text"'),
    ],
)  # fmt: skip
def test_each_mistake_is_one_sentence_with_its_line(text: str, message: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "atomr.toml")

    assert str(raised.value) == f"atomr.toml:{message}"


@pytest.mark.parametrize(
    "written",
    ['credential = "sk-s3cret"', 'credential = ["sk-s3cret"]', 'api_key = "sk-s3cret"'],
)
def test_a_secret_in_the_file_is_not_repeated_in_the_error(written: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(f"{A}{written}\n", "atomr.toml")

    assert "s3cret" not in str(raised.value)


def failure(path: Path) -> str:
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    return str(raised.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    file = tmp_path / "absent.toml"

    assert failure(file) == f"{file}: there is no such file"


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    assert failure(tmp_path) == f"{tmp_path}: is a directory, not a file"


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    # A loop of links refuses root as well, unlike a permission.
    loop = tmp_path / "loop.toml"
    loop.symlink_to(loop)

    assert failure(loop) == (
        f"{loop}: cannot be read: Too many levels of symbolic links"
    )


def test_text_in_another_encoding_names_the_line(tmp_path: Path) -> None:
    file = tmp_path / "latin.toml"
    file.write_bytes(b"[gateway]\n# caf\xe9\n")

    assert failure(file) == f"{file}:2: is not UTF-8 text; save it with that encoding"


def test_a_byte_order_mark_is_passed_over(tmp_path: Path) -> None:
    file = tmp_path / "bom.toml"
    file.write_bytes(b'\xef\xbb\xbf[gateway]\nbind = "x:1"\n')

    assert load_config(file).gateway.bind == "x:1"


def test_the_gateways_keys_are_named_by_place() -> None:
    text = '[gateway]\nkeys = [{ env = "A" }, { file = "k" }]\nbind = "[::1]:1"\n'
    gateway = parse_config(text, "/etc/atomr.toml").gateway
    assert gateway.keys == (EnvSecret("A"), FileSecret("/etc/k"))
    assert gateway.port == 1


@pytest.mark.parametrize(
    ("keys", "problem"),
    [
        ('["sk-secret"]', "a key does not belong in this file"),
        ('"sk-secret"', "keys is no array of tables"),
        ("[]", "keys is no array of tables"),
        ('[{ header = "x" }]', "'header'"),
        ('[{ env = "A", file = "b" }]', "needs one source"),
        ('[{ env = "" }]', "must be a string that is not empty"),
    ],
)
def test_a_gateways_key_is_never_in_the_file_itself(keys: str, problem: str) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(f"[gateway]\nkeys = {keys}\n", "a.toml")
    assert problem in str(raised.value)
    assert str(raised.value).startswith("a.toml:2: ")
    assert "sk-secret" not in str(raised.value)


def test_a_certificate_is_beside_the_file_and_has_its_key(tmp_path: Path) -> None:
    file = tmp_path / "atomr.toml"
    file.write_text('[gateway]\ncertificate = "tls/chain.pem"\n')
    with pytest.raises(ConfigError, match="1: gateway: private_key: None is needed"):
        load_config(file)
    with file.open("a") as opened:
        opened.write(f'private_key = "{tmp_path}/key.pem"\n')
    gateway = load_config(file).gateway
    assert (gateway.certificate, gateway.private_key) == (
        f"{tmp_path}/tls/chain.pem",
        f"{tmp_path}/key.pem",
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ('admin_key = { env = "ADMIN" }', EnvSecret("ADMIN")),
        ('admin_key = { file = "admin" }', FileSecret("/etc/admin")),
        ("", None),
    ],
)
def test_the_admin_key_is_found_in_a_variable_or_a_file(
    text: str, key: EnvSecret | FileSecret | None
) -> None:
    config = parse_config(f"[gateway]\n{text}\n", "/etc/atomr.toml")
    assert config.gateway.admin_key == key


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ('"sk-shown"', "a key does not belong in this file"),
        ('[{ env = "A" }]', "a key does not belong in this file"),
        ('{ header = "x" }', "header"),
        ('{ env = "" }', "env must be a string that is not empty"),
    ],
)
def test_an_admin_key_that_is_no_place_is_refused_and_not_shown(
    value: str, problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        parse_config(f"[gateway]\nadmin_key = {value}\n", "atomr.toml")
    assert "sk-shown" not in str(caught.value)
    assert caught.value.line == 2


def test_a_runtime_that_is_not_named_is_chosen_by_the_models_name() -> None:
    text = """
[[deployment]]
name = "claude-opus-4"
[[deployment]]
name = "fast"
model = "gpt-5"
[[deployment]]
name = "own"
runtime = "mock"
model = "gpt-5"
"""
    config = parse_config(text, "atomr.toml")
    assert [d.runtime for d in config.deployments] == ["anthropic", "openai", "mock"]
    assert config.chosen == (
        "deployment 'claude-opus-4': runtime anthropic, because Anthropic's models "
        "are called so",
        "deployment 'fast': runtime openai, because OpenAI's models are called so",
    )
