"""What is promised in numbers is what the tests try: a number cannot be lowered unseen.

Each row says what is promised, the constant of a test that tries it, and the number
that it has to have.  Who tries less, or tolerates more, changes the promise: here, and
on the page that makes it.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import attrs
import pytest

from tests.engine import every

ROOT = Path(__file__).parents[1]


@attrs.frozen
class Promise:
    """One number.

    Attributes:
        what: is promised.
        module: the file of the test that tries it.
        constant: in that module; a tuple counts as the number of its members.
        promised: the number.
        is_most: whether a smaller number is stricter: a bound on time, or an error.
        page: a page that says it; None: none does.
        said: by which words.
    """

    what: str
    module: str
    constant: str
    promised: float
    is_most: bool = False
    page: str | None = None
    said: str = ""


LIMITS = "tests/serving/limits/test_real_limits.py"
KEYS = "docs/how-to/virtual-keys.md"
BUDGETS = "tests/atomr/cluster/real/test_budgets.py"
ENGINES = "tests/engine/test_every_engine.py"
MEASURED = "docs/explanation/clusters-measured.md"
SHARED = "docs/explanation/limits-and-budgets.md"

PROMISES = (
    Promise(
        "rolling restarts under requests, of which none fails",
        "tests/serving/placing/test_rolling.py",
        "RESTARTS",
        20,
        page="docs/explanation/placement.md",
        said="test_rolling.py` makes 20 of them",
    ),
    Promise(
        "rolling restarts that lose no name",
        "tests/atomr/cluster/real/test_services.py",
        "RESTARTS",
        20,
        page=MEASURED,
        said="20 rolling restarts of five nodes lose no name",
    ),
    Promise(
        "seeds by which each bug that is put in is found",
        "tests/atomr/gossip/test_mutants.py",
        "SEEDS",
        1_000,
        is_most=True,
        page=MEASURED,
        said="is found within 1,000 seeds",
    ),
    Promise(
        "requests that are offered to nodes that share a provider's limit",
        LIMITS,
        "OFFERED",
        10_000,
        page=SHARED,
        said="more than 10,000 in all",
    ),
    Promise(
        "nodes that share it",
        LIMITS,
        "NAMES",
        4,
        page=SHARED,
        said="four nodes in processes of their own, mutual TLS",
    ),
    Promise(
        "of the limit that they use, at least",
        LIMITS,
        "USED_SHARE",
        0.97,
        page=SHARED,
        said="at least 97 % of the limit",
    ),
    Promise(
        "microdollars that are never overspent, through a cut and a kill",
        BUDGETS,
        "UNITS",
        10_000_000,
        page=SHARED,
        said="$10.00 from four nodes",
    ),
    Promise("nodes that spend them", BUDGETS, "NAMES", 4),
    Promise(
        "seconds until a key that was revoked opens nothing on another node",
        "tests/serving/test_key_ring.py",
        "REVOKED_WITHIN_S",
        1.0,
        is_most=True,
        page=KEYS,
        said="opens nothing on any connected node within a second",
    ),
    Promise(
        "requests that share an engine's steps",
        ENGINES,
        "AT_ONCE",
        16,
        page="docs/reference/engines.md",
        said="16 at once sooner than one by one",
    ),
    Promise(
        "seconds until an engine is free of who has left",
        ENGINES,
        "FREE_WITHIN_S",
        0.2,
        is_most=True,
    ),
    *(
        Promise(
            "how far embeddings are from the reference's, in each number",
            f"tests/{module}.py",
            "CLOSE",
            1e-5,
            is_most=True,
        )
        for module in (
            "engine/test_ort_models",
            "plugins/ort/test_embedding",
            "plugins/tensorrt/test_models",
        )
    ),
)


@pytest.mark.parametrize("promise", PROMISES, ids=lambda p: f"{p.module}:{p.constant}")
def test_what_is_promised_is_tried(promise: Promise) -> None:
    tried = constant_of(promise.module, promise.constant)
    kept = tried <= promise.promised if promise.is_most else tried >= promise.promised
    assert kept, f"{promise.what}: {promise.promised} are promised, {tried} tried"


@pytest.mark.parametrize(
    ("page", "said"),
    [(promise.page, promise.said) for promise in PROMISES if promise.page is not None],
)
def test_a_page_that_promises_it_says_so(page: str, said: str) -> None:
    assert said
    assert said in (ROOT / page).read_text(encoding="utf-8")


def test_continuous_integration_runs_a_thousand_seeds_of_each_simulation() -> None:
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    [seeds] = re.findall(r"(?m)\bmake sim SEEDS=(\d+) >.* &$", text)
    assert int(seeds) >= 1_000
    assert 'wait "$sims"' in text  # or a simulation that fails is told to nobody


def test_continuous_integration_makes_the_engines_and_asks_each_the_same() -> None:
    text = (ROOT / ".ci/run").read_text(encoding="utf-8")
    assert re.search(r"(?m)^make engines\b", text) is not None
    [asked] = re.findall(rf"(?m)^make test-slow ARGS=\"{ENGINES} (.*)\"$", text)
    ours = {e.runtime for e in every.ENGINES if e.environment is not None}
    assert ours == set(re.findall(r"\w+", asked)) - {"k", "or"}


def constant_of(module: str, name: str) -> float:
    """Return a test's constant, which has to be used there.

    Read and not imported: some of the tests need engines.
    """
    tree = ast.parse((ROOT / module).read_text(encoding="utf-8"))
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and [each.id for each in node.targets if isinstance(each, ast.Name)] == [name]
    ]
    [value] = values
    used = [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Name)
        and node.id == name
        and isinstance(node.ctx, ast.Load)
    ]
    assert used, f"nothing in {module} uses {name}"
    if isinstance(value, ast.Tuple):
        return len(value.elts)
    number = ast.literal_eval(value)
    assert isinstance(number, int | float)
    return number
