"""A model in several files on llama.cpp: any part stands for all of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from atomr_infer.errors import EngineStartError
from atomr_infer.model.batch import ExecuteBatch, Message, Role, Sampling

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.llamacpp.conftest import Opener

pytestmark = [pytest.mark.engine, pytest.mark.slow]

PATIENCE_S = 600.0  # a busy machine is slow; no test is about speed
OF_THE_FILE = ("GGUF.", "general.architecture")
"""Beginnings of what the writer writes itself."""


def split(source: str, folder: Path, parts: int) -> list[Path]:
    """Write a model again, in several files."""
    reader = GGUFReader(source)
    most = -(-len(reader.tensors) // parts)
    architecture = reader.fields["general.architecture"].contents()
    writer = GGUFWriter(folder / "m.gguf", architecture, split_max_tensors=most)
    for field in reader.fields.values():
        if not field.name.startswith(OF_THE_FILE):
            kind = field.types[0]
            inner = field.types[-1] if kind is GGUFValueType.ARRAY else None
            content: Any = field.contents()
            writer.add_key_value(field.name, content, kind, sub_type=inner)
    for tensor in reader.tensors:
        writer.add_tensor(tensor.name, tensor.data, raw_dtype=tensor.tensor_type)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("*.gguf"))


async def test_any_part_is_the_model_and_a_missing_one_is_named(
    opened: Opener, gguf: str, tmp_path: Path
) -> None:
    first, second, third = split(gguf, tmp_path, 3)
    batch = ExecuteBatch(
        request_id="r",
        model="m",
        messages=(Message(Role.USER, "Say hello."),),
        sampling=Sampling(max_tokens=4, temperature=0.0),
    )
    said = []
    for model in (gguf, str(first), str(third)):
        with trio.fail_after(PATIENCE_S):
            async with opened(model) as runner, runner.execute(batch) as chunks:
                said.append("".join([chunk.text async for chunk in chunks]))
    assert said[0]
    assert said == [said[0]] * 3
    second.unlink()
    with pytest.raises(EngineStartError, match=f"there is no {second.name}"):
        async with opened(str(first)):
            pass
