"""Keys from variables, files and headers: what is rotated takes effect by itself."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING

import pytest
import trio

from atomr import telemetry
from atomr_infer.errors import (
    ConfigError,
    InvalidRequestError,
    MissingSecretError,
    PluginError,
    RateLimitedError,
    UpstreamAuthError,
)
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.secret import (
    EnvSecret,
    FileSecret,
    HeaderSecret,
    PluginSecret,
    PooledSecret,
    Secret,
    SecretSource,
)
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.remote.credentials.keys import ClientKey, NoKey, PooledKeys
from atomr_infer.runtimes.credentials import Grant

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from trio.testing import MockClock

    from atomr_infer.runtimes.credentials import Credentials

REFUSED = UpstreamAuthError("no such key", status=401)


def credentials(
    source: SecretSource | None, environ: Mapping[str, str] | None = None
) -> Credentials:
    deployment = Deployment(name="d", runtime="openai", credential=source)
    return make_credentials(deployment, environ or {})


def pool(*sources: SecretSource | PooledSecret) -> PooledKeys:
    deployment = Deployment(name="d", runtime="openai", credentials=sources)
    made = make_credentials(deployment, {})
    assert isinstance(made, PooledKeys)
    return made


async def key(keys: Credentials) -> str:
    secret = (await keys.current()).secret
    assert secret is not None
    return secret.reveal()


# --- one key ----------------------------------------------------------------


async def test_no_credential_is_no_key() -> None:
    keys = credentials(None)
    assert isinstance(keys, NoKey)
    grant = await keys.current()
    assert grant.secret is None
    assert not keys.refused(grant, REFUSED)
    assert await keys.another([grant]) is None


async def test_a_variable_is_looked_up_at_each_request() -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    assert await key(keys) == "a"
    environ["KEY"] = "b"
    assert await key(keys) == "b"
    assert keys.version == 1


async def test_a_key_that_was_told_to_wait_is_not_used_until_then(
    autojump_clock: MockClock,
) -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    grant = await keys.current()
    assert keys.states == ("fresh",)
    assert not keys.refused(grant, RateLimitedError("slow", retry_after_s=3.0))
    assert keys.states == ("resting",)
    await trio.sleep(1.0)
    with pytest.raises(RateLimitedError) as caught:
        await keys.current()
    assert (caught.value.code, caught.value.retry_after_s) == ("key_resting", 2.0)
    await trio.sleep(2.0)
    assert await key(keys) == "a"


@pytest.mark.parametrize("way", ["another key", "on demand"])
async def test_a_rest_ends_with(way: str, autojump_clock: MockClock) -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    keys.refused(await keys.current(), RateLimitedError("slow", retry_after_s=3.0))
    if way == "another key":
        environ["KEY"] = "b"
    else:
        keys.renew()
    assert await key(keys) == environ["KEY"]


async def test_a_429_of_a_key_that_was_replaced_is_not_about_the_new_one(
    autojump_clock: MockClock,
) -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    old = await keys.current()
    environ["KEY"] = "b"
    await keys.current()
    keys.refused(old, RateLimitedError("slow", retry_after_s=3.0))
    assert await key(keys) == "b"


async def test_a_variable_that_goes_away_leaves_the_last_key_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    del environ["KEY"]
    assert [await key(keys) for _ in range(3)] == ["a", "a", "a"]
    (record,) = caplog.records
    assert "the last key is used on" in record.getMessage()
    environ["KEY"] = "b"
    assert await key(keys) == "b"


async def test_a_file_that_is_replaced_is_seen_within_a_second(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file = tmp_path / "key"
    file.write_text("a\n")
    keys = credentials(FileSecret(str(file)))
    assert await key(keys) == "a"
    fresh = tmp_path / "fresh"
    fresh.write_text("b\n")
    fresh.replace(file)
    await trio.sleep(1.0)
    assert await key(keys) == "b"


async def test_a_file_is_seen_to_be_another_by_more_than_its_time(
    tmp_path: Path, autojump_clock: MockClock
) -> None:
    file, fresh = tmp_path / "key", tmp_path / "fresh"
    file.write_text("a")
    before = file.stat()
    keys = credentials(FileSecret(str(file)))
    assert await key(keys) == "a"
    fresh.write_text("b")
    os.utime(fresh, ns=(before.st_atime_ns, before.st_mtime_ns))
    fresh.replace(file)
    await trio.sleep(1.0)
    assert await key(keys) == "b"


async def test_renewing_reads_a_file_at_once(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a")
    keys = credentials(FileSecret(str(file)))
    await keys.current()
    file.write_text("b")
    keys.renew()
    assert await key(keys) == "b"


async def test_a_file_is_read_at_once_when_its_key_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "key"
    file.write_text("a")
    keys = credentials(FileSecret(str(file)))
    grant = await keys.current()
    before = file.stat()
    file.write_text("b")
    # Even where the disk's clock is too coarse to tell.
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert keys.refused(grant, REFUSED)
    another = await keys.another([grant])
    assert another is not None
    assert another.secret == Secret("b")


@pytest.mark.parametrize("state", ["empty", "absent", "not text", "two lines"])
async def test_a_file_that_is_being_written_does_not_stop_anything(
    tmp_path: Path,
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    state: str,
) -> None:
    file = tmp_path / "key"
    file.write_text("key-a")
    keys = credentials(FileSecret(str(file)))
    if state == "absent":
        file.unlink()
    else:
        content = {"empty": b"", "not text": b"key\xff", "two lines": b"key-b\nx y"}
        file.write_bytes(content[state])
    await trio.sleep(1.0)
    assert await key(keys) == "key-a"
    assert "the last key is used on" in caplog.text
    assert "key-b" not in caplog.text
    file.write_text("key-c")
    await trio.sleep(1.0)
    assert await key(keys) == "key-c"


async def test_a_429_is_not_about_a_single_key() -> None:
    keys = credentials(Secret("a"))
    grant = await keys.current()
    assert not keys.refused(grant, RateLimitedError("slow down"))
    assert keys.version == 0


async def test_another_key_is_given_once_for_a_request() -> None:
    environ = {"KEY": "a"}
    keys = credentials(EnvSecret("KEY"), environ)
    first = await keys.current()
    environ["KEY"] = "b"
    second = await keys.another([first])
    assert second is not None
    environ["KEY"] = "c"
    assert await keys.another([first, second]) is None


@pytest.mark.parametrize("name", ["KEY", "FILE"])
def test_a_key_that_is_no_word_is_refused_unshown(tmp_path: Path, name: str) -> None:
    file = tmp_path / "key"
    file.write_text("sk-s3 cret")
    source = FileSecret(str(file)) if name == "FILE" else EnvSecret("KEY")
    with pytest.raises(MissingSecretError, match="that no key has") as caught:
        credentials(source, {"KEY": "sk-s3\ncret"})
    assert "s3" not in str(caught.value)


# --- the client's -----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-Upstream-Key", "sk-1"),
        ("authorization", "Bearer sk-1"),
        ("authorization", "bearer  sk-1 "),
    ],
)
async def test_the_client_s_key_is_taken_from_its_header(name: str, value: str) -> None:
    keys = credentials(HeaderSecret(name))
    assert isinstance(keys, ClientKey)
    grant = await keys.current({name.lower(): value, "x-other": "sk-2"})
    assert grant.secret == Secret("sk-1")
    assert not keys.refused(grant, REFUSED)
    assert keys.version == 0, "a client cannot make our session anew"


@pytest.mark.parametrize("value", ["", " ", "Bearer "])
async def test_a_client_without_a_key_is_told_the_header(value: str) -> None:
    keys = credentials(HeaderSecret("x-upstream-key"))
    with pytest.raises(InvalidRequestError, match="'x-upstream-key'") as caught:
        await keys.current({"x-upstream-key": value, "x-api-key": "sk-1"})
    assert caught.value.code == "missing_upstream_key"


@pytest.mark.parametrize("name", ["cookie", "Host", "content-length", "a b", "", "é"])
def test_a_header_that_holds_no_key_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="header"):
        HeaderSecret(name)


# --- several ----------------------------------------------------------------


async def test_a_pool_uses_its_keys_by_weight() -> None:
    keys = pool(PooledSecret(Secret("a"), 2), Secret("b"))
    assert [await key(keys) for _ in range(6)] == ["a", "b", "a", "a", "b", "a"]


async def test_a_dead_key_makes_sessions_anew_once_and_is_logged_without_text(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = pool(Secret("sk-s3cret-aaaa"), Secret("sk-s3cret-bbbb"))
    wave = [await keys.current() for _ in range(4)]
    with caplog.at_level(logging.DEBUG):
        for grant in wave[::2]:
            assert keys.refused(grant, REFUSED)
    assert keys.states == ("dead", "fresh")
    assert keys.version == 1
    assert caplog.messages == ["d: key 1 of 2 is dead (credential)"]
    assert "s3cret" not in repr(wave)


async def test_what_becomes_of_a_key_is_told_by_its_place(
    autojump_clock: MockClock,
) -> None:
    told: list[tuple[object, ...]] = []

    def keep(_: object, __: object, metadata: Mapping[str, object]) -> None:
        told.append(tuple(metadata.values()))

    telemetry.attach("test-keys", ("atomr_infer", "credentials"), keep)
    keys = pool(Secret("a"), Secret("b"))
    for error in (REFUSED, RateLimitedError("x", retry_after_s=5.0)):
        keys.refused(await keys.current(), error)
    await trio.sleep(30.0)
    keys.accepted(await keys.current())
    telemetry.detach("test-keys")
    assert told == [
        ("d", 0, "dead", "credential"),
        ("d", 1, "resting", "rate"),
        ("d", 0, "fresh", "probe"),
    ]


async def test_a_resting_key_keeps_the_session() -> None:
    keys = pool(Secret("a"), Secret("b"))
    keys.refused(await keys.current(), RateLimitedError("x", retry_after_s=5.0))
    assert keys.states == ("resting", "fresh")
    assert keys.version == 0


async def test_renewing_takes_every_key_for_fresh() -> None:
    keys = pool(Secret("a"), Secret("b"))
    for _ in range(2):
        keys.refused(await keys.current(), REFUSED)
    keys.renew()
    assert keys.states == ("fresh", "fresh")


async def test_an_error_that_is_not_about_the_key_gives_a_probe_back(
    autojump_clock: MockClock,
) -> None:
    keys = pool(Secret("a"))
    keys.refused(await keys.current(), REFUSED)
    await trio.sleep(30.0)
    probe = await keys.current()
    with pytest.raises(UpstreamAuthError):
        await keys.current()
    assert not keys.refused(probe, InvalidRequestError("bad"))
    assert (await keys.current()).secret == Secret("a")


async def test_a_pool_misses_a_key_at_the_start() -> None:
    with pytest.raises(MissingSecretError, match="variable B is not set"):
        pool(Secret("a"), EnvSecret("B"))


# --- what cannot work -------------------------------------------------------


def test_an_unknown_provider_is_named_with_the_nearest() -> None:
    with pytest.raises(PluginError) as caught:
        credentials(PluginSecret("oauth"))
    assert str(caught.value) == (
        "no credential provider is called 'oauth'; did you mean 'oauth2'? "
        "installed: google, oauth2"
    )


@pytest.mark.parametrize(
    ("provider", "options", "problem"),
    [
        ("oauth2", {}, "option 'token_url' is missing"),
        ("oauth2", {"tokn_url": "x"}, "option 'tokn_url' is not known; use token_url"),
        ("google", {"key": "{}"}, "option 'key' does not belong in this file"),
        ("google", {"scope": 3}, "option 'scope' must be a string"),
    ],
)
def test_a_provider_refuses_its_options(
    provider: str, options: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem):
        credentials(PluginSecret(provider, options))


def oauth2(**changes: object) -> dict[str, object]:
    return {
        "token_url": "https://login.example/token",
        "client_id": "gateway",
        "client_secret": EnvSecret("CLIENT_SECRET"),
        **changes,
    }


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (oauth2(token_url="http://login.example/token"), "is not encrypted"),
        (oauth2(token_url="login.example"), "does not start with http"),
        (oauth2(token_url=3), "a token URL is a string"),
        (oauth2(client_secret="s3cret"), "does not belong in this file"),
        (oauth2(client_id=3), "option 'client_id' must be a string"),
        (oauth2(scope=["a"]), "option 'scope' must be a string"),
    ],
)
def test_oauth2_refuses_what_would_leak_or_fail(
    options: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        credentials(PluginSecret("oauth2", options))
    assert "s3cret" not in str(caught.value)


def test_a_grant_does_not_show_its_key() -> None:
    assert "s3cret" not in repr(Grant(Secret("s3cret")))
