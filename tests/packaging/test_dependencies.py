"""The base install and `remote-only` bring no package that needs a GPU.

The graph is walked in the metadata of what is installed here, so that it needs
no network; a requirement that is not installed is a failure, not a gap.
"""

from __future__ import annotations

import re
from importlib.metadata import PackageNotFoundError, distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

OURS = "atomr-infer"
FORBIDDEN = re.compile(
    r"(torch.*|nvidia-.*|cuda-.*|cupy.*|vllm.*|tensorrt.*|onnxruntime.*|mistralrs.*"
    r"|gguf|triton|jax.*|tensorflow.*|numba|transformers|llama-cpp.*|.*-cu\d+)"
)


def requirements(name: str, extra: str) -> list[Requirement]:
    """Return what a distribution needs when it is installed with ``extra``."""
    needed = [Requirement(line) for line in distribution(name).requires or []]
    return [
        requirement
        for requirement in needed
        if requirement.marker is None or requirement.marker.evaluate({"extra": extra})
    ]


def graph(extra: str) -> dict[str, str]:
    """Return each package that the install brings, and what asked for it."""
    found: dict[str, str] = {}
    pending = [(OURS, extra)]
    seen: set[tuple[str, str]] = set()
    while pending:
        name, wanted = pending.pop()
        if (name, wanted) in seen:
            continue
        seen.add((name, wanted))
        for requirement in requirements(name, wanted):
            package = canonicalize_name(requirement.name)
            found.setdefault(package, name)
            pending.extend((package, extra) for extra in ("", *requirement.extras))
    return found


@pytest.mark.parametrize("extra", ["", "remote-only", "openai"])
def test_no_gpu_package_is_in_a_remote_install(extra: str) -> None:
    packages = graph(extra)

    assert "trio" in packages
    assert {
        name: by for name, by in packages.items() if FORBIDDEN.fullmatch(name)
    } == {}


def test_the_walk_finds_an_engine_where_there_is_one() -> None:
    packages = graph("default-prod")

    assert packages["mistralrs"] == OURS
    assert FORBIDDEN.fullmatch("mistralrs")


def test_a_requirement_that_is_not_installed_is_not_passed_over() -> None:
    with pytest.raises(PackageNotFoundError):
        requirements("no-such-distribution-anywhere", "")


@pytest.mark.parametrize(
    "name",
    ["torch", "nvidia-cublas-cu12", "onnxruntime-gpu", "vllm", "cuda-python", "jaxlib"],
)
def test_the_forbidden_names_are_recognised(name: str) -> None:
    assert FORBIDDEN.fullmatch(name)
