"""A file that is no TOML: what is wrong with it, where, and what to do."""

from __future__ import annotations

import tomllib

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.config.syntax import explain
from atomr_infer.errors import ConfigError

QUOTES = 'text stands in quotes, as in name = "text"'
LIST = (
    "the list of 'serves' has a value without quotes, lacks a comma between two, or is "
    "not closed with ']'"
)
CLOSE = "is not closed; end it with the quote that opens it"


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("a = 1\nb =\n", 2, f"'b' has no value behind its '='; {QUOTES}"),
        ("b = # later\n", 1, f"'b' has no value behind its '='; {QUOTES}"),
        ("a = qwen\n", 1, f"'a' is followed by what is no value; {QUOTES}"),
        ("a = = 1\n", 1, f"'a' is followed by '=', which is no value; {QUOTES}"),
        ("a = True", 1, "'a' is followed by 'True', which is no value; write true"),
        ("a = off", 1, "'a' is followed by 'off', which is no value; write false"),
        ("a = null", 1, "'a' is followed by 'null', which is no value; "
         "leave out the key that has no value"),
        ("a = “b”", 1, "'a' is followed by “, which is no value; "
         "write straight quotes, \" or '"),
        ("a = 10s\n", 1, f"the value of 'a' is followed by more; {QUOTES}, and "
         "each key has a line of its own"),
        ('a = """\nb\n""" c', 3, f"a value is followed by more; {QUOTES}, and each key "
         "has a line of its own"),
        ("[a] b = 1\n", 1, f"a header is followed by more; {QUOTES}, and each key has "
         "a line of its own"),
        ("[[d]]\nname: m\n", 2, "'name' is not followed by '='; write name = value"),
        ("[[d]]\nname m\n", 2, "a key is not followed by '='; write name = value"),
        ("a = 1\n\n[gateway\n", 3, "'[gateway' is no header of a table; write [name]"),
        ("[[gateway]\n", 1, "'[[gateway]' is no header of a table; write [[name]]"),
        ("[]\n", 1, "'[]' is no header of a table; write [name]"),
        ("a = { b = 1,\n}", 1, "a key is missing; { name = value, ... } is on one "
         "line, and ends without a comma"),
        ("{a = 1}\n", 1, "a line cannot begin with '{'; write name = value, a "
         "[table], or a # comment"),
        ('a = 1\nb = "open', 2, f"the text of 'b' {CLOSE}"),
        ('a = 1\nb = "open\nc = 1\n', 2, f"the text of 'b' {CLOSE}"),
        ("a = 1\nb = 'open", 2, f"the text of 'b' {CLOSE}"),
        ('a = """x"""\nb = """\nopen\n\nc = 1\n', 2, f"the text of 'b' {CLOSE}"),
        ('serves = ["a" "b"]\n', 1, LIST),
        ('a = [1]\nserves = ["a",\n  "b",\nc = 1\n', 2, f"{LIST} before line 4"),
        ('serves = ["a"\n\nc = 1\n', 1, f"{LIST} before line 3"),
        ("a = 1\n[t]\na = 1\n\na = 2\n", 5, "'a' has a value already, on line 3; each "
         "key stands once in its table"),
        ("[deployment]\nb = 1\n[deployment]\n", 3, "[deployment] is there already, on "
         "line 1; write it once, or [[deployment]] for each of several"),
        ("a.b = 1\n[a]\n", 2, "[a] is there already; write it once, or [[a]] for each "
         "of several"),
        ('a = "C:\\models"\n', 1, 'a backslash in "text" begins an escape; write '
         "'...' around what has backslashes, or two for each"),
        ('a = "\x01"', 1, r"illegal character '\x01', which is not seen; take it out"),
        ("a = {b = 1, b = 2}\n", 1, "'b' is twice in one { ... }; write it once"),
    ],
)  # fmt: skip
def test_it_says_the_line_what_is_there_and_what_to_write(
    text: str, line: int, said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        parse_config(text, "a.toml")

    assert str(raised.value) == f"a.toml:{line}: not valid TOML: {said}"


@pytest.mark.parametrize(
    "text",
    [
        "api_key = s3cret-s3cret\n",
        "api_key = s3cret\n",
        'api_key = "s3cret\n',
        'api_key = "s3cret" s3cret\n',
        "keys = [s3cret]\n",
        "keys = [\n  s3cret,\n]\n",
        'keys = [\n  "a" s3cret\n]\n',
        "credential = { env = s3cret }\n",
        "other = AIza-s3cret-0123456789\n",
        "AIza-s3cret-0123456789\n",
        # A value in a table of one line, whose key is not the one of the line.
        "options = { api_key = s3cret }\n",
        "headers = { Authorization = Bearers3cret }\n",
        "gateway = { admin = { password = s3cret22ab } }\n",
        'a = { b = "x" s3cret }\n',
        # Keys that no list of words for secrets has.
        "proxy = http://user:s3cret@proxy.local\n",
        "cookie = s3cret\n",
        "pass = s3cret\n",
        "a = 3s3cret\n",
        'a = """\nb\n""" s3cret\n',
        # What stands on a line alone, as the rest of something.
        "=s3cret\n",
        "s3cret\n",
        "s3cret==\n",
        "s3cret word\n",
        "@s3cret\n",
        # Headers and keys with more than a name.
        '[provider api_key="s3cret"]\n',
        '["s3cret", "b"]\n',
        "[api_key s3cret\n",
        '[a."s3cret"]\n[a."s3cret"]\n',
        '"s3cret" = 1\n"s3cret" = 2\n',
        '"s3cret" = yes\n',
        'a = { "s3cret!" = 1, "s3cret!" = 2 }\n',
        'a = { "s3cret-0123456789" = 1, "s3cret-0123456789" = 2 }\n',
    ],
)
def test_it_repeats_nothing_that_may_be_a_secret(text: str) -> None:
    with pytest.raises(tomllib.TOMLDecodeError) as raised:
        tomllib.loads(text)

    assert "s3cret" not in explain(text, str(raised.value))[1]
