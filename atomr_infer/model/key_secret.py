"""The secret of a virtual key: how it looks, and what is kept of it.

::

    sk-atomr-<43 characters><6 characters>
             256 random bits  checksum

The words in front let scanners for leaked secrets find it, by
``sk-atomr-[0-9A-Za-z]{49}``, and the checksum lets them, and us, tell a mistyped one
from one that is not known.

What is kept is a digest.  A slow hash makes guessing dear where people choose the
secret; of 2**256 there is nothing to guess, so BLAKE2b is enough, and a request pays
a microsecond for it.

Pure: the random bytes are an argument.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from zlib import crc32

PREFIX = "sk-atomr-"
"""What all secrets of virtual keys begin with."""

SECRET_BYTES = 32
"""How much randomness is in one."""

_ALPHABET = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_BODY_CHARS = 43
_SUM_CHARS = 6
_SHOWN_CHARS = 4
_FORM = re.compile(rf"{PREFIX}[0-9A-Za-z]{{{_BODY_CHARS + _SUM_CHARS}}}")


def make_secret(random: bytes) -> str:
    """Return a secret.

    Args:
        random: ``SECRET_BYTES`` bytes from the operating system's generator.

    >>> make_secret(bytes(32))
    'sk-atomr-00000000000000000000000000000000000000000002CZclj'
    """
    if len(random) != SECRET_BYTES:
        raise ValueError(f"a secret is made of {SECRET_BYTES} bytes, not {len(random)}")
    body = _text(int.from_bytes(random, "big"), _BODY_CHARS)
    return f"{PREFIX}{body}{_checksum(body)}"


def is_ours(text: str) -> bool:
    """Whether a key says that it is a virtual key's, be it a good one or not."""
    return text.startswith(PREFIX)


def is_whole(text: str) -> bool:
    """Whether a text can be a secret: nothing is missing or mistyped.

    >>> is_whole("sk-atomr-00000000000000000000000000000000000000000002CZclj")
    True
    >>> is_whole("sk-atomr-00000000000000000000000000000000000000000002CZcl")
    False
    """
    if _FORM.fullmatch(text) is None:
        return False
    return _checksum(text[len(PREFIX) : -_SUM_CHARS]) == text[-_SUM_CHARS:]


def digest_of(key: str) -> bytes:
    """Return what is kept of a key: 32 bytes from which nobody gets it back."""
    return blake2b(key.encode("utf-8", "surrogateescape"), digest_size=32).digest()


def shown(secret: str) -> str:
    """Return as much of a secret as people need to tell it from others.

    Four characters of it, of which nobody can guess the other 232 bits.

    >>> shown(make_secret(bytes(32)))
    'sk-atomr-0000...'
    """
    return f"{secret[: len(PREFIX) + _SHOWN_CHARS]}..."


def _checksum(body: str) -> str:
    return _text(crc32(body.encode()), _SUM_CHARS)


def _text(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_ALPHABET))
        digits.append(_ALPHABET[digit])
    return "".join(reversed(digits))
