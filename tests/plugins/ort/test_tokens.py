"""What is said of single tokens, by the kinds of tokenizers that there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from atomr_infer_ort.tokens import ModelTokenizer
from tests.plugins.ort.models import byte_tokenizer

if TYPE_CHECKING:
    from pathlib import Path

BLANK = "\u2581"
WORDS = [f"{BLANK}one", f"{BLANK}two", "s", f"{BLANK}{BLANK}", BLANK]


def llama_decoder() -> decoders.Decoder:
    """As Llama 2 and Mistral have it: the blank of the beginning is cut."""
    blank = decoders.Replace(BLANK, " ")
    rest = [decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    return decoders.Sequence([blank, *rest])


def spaced(folder: Path, decoder: decoders.Decoder) -> ModelTokenizer:
    """A tokenizer of words, with bytes for what is none."""
    names = ["<unk>", *WORDS, *(f"<0x{byte:02X}>" for byte in range(0x100))]
    model = models.WordLevel({name: at for at, name in enumerate(names)}, "<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoder
    tokenizer.add_special_tokens([AddedToken("<end>")])
    return saved(tokenizer, folder)


def saved(tokenizer: Tokenizer, folder: Path) -> ModelTokenizer:
    path = folder / "tokenizer.json"
    tokenizer.save(str(path))
    return ModelTokenizer(path)


@pytest.mark.parametrize(
    "decoder", [llama_decoder(), decoders.Metaspace()], ids=["strip", "metaspace"]
)
def test_a_token_of_sentencepiece_keeps_its_blank(
    tmp_path: Path, decoder: decoders.Decoder
) -> None:
    tokenizer = spaced(tmp_path, decoder)
    tokens = [*range(1, 1 + len(WORDS))]
    texts = [" one", " two", "s", "  ", " "]
    assert [tokenizer.name_of(token) for token in tokens] == texts
    assert [tokenizer.bytes_of(token) for token in tokens] == [
        text.encode() for text in texts
    ]


def test_the_bytes_of_an_answer_are_its_text(tmp_path: Path) -> None:
    tokenizer = spaced(tmp_path, llama_decoder())
    tokens = tokenizer.encode("one two one", with_special=False)
    told = b"".join(tokenizer.bytes_of(token) or b"" for token in tokens)
    assert told.decode() == " one two one"
    assert tokenizer.decode(tokens) == "one two one"


def test_a_byte_and_a_marker_of_sentencepiece_are_said_as_they_are(
    tmp_path: Path,
) -> None:
    tokenizer = spaced(tmp_path, llama_decoder())
    first_byte, end = 1 + len(WORDS), tokenizer.size - 1
    assert tokenizer.bytes_of(first_byte + 0xF0) == b"\xf0"
    assert tokenizer.bytes_of(first_byte + 0x0A) == b"\n"
    assert tokenizer.bytes_of(end) == b"<end>"


def test_a_byte_level_token_is_said_as_its_bytes(tmp_path: Path) -> None:
    tokenizer = saved(byte_tokenizer(), tmp_path)
    text = f" a{BLANK}b"  # the sign is a character here, and no blank
    tokens = tokenizer.encode(text, with_special=False)
    told = b"".join(tokenizer.bytes_of(token) or b"" for token in tokens)
    assert told == text.encode()
