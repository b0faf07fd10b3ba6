"""Without a configuration, every installed runtime is asked; none is lost."""

from __future__ import annotations

from importlib.metadata import distributions
from typing import TYPE_CHECKING

import pytest

from atomr_infer.config.discovery import (
    Discovery,
    demo_deployment,
    environment_deployments,
)
from atomr_infer.model.deployment import Deployment

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from atomr_infer.runtimes.loader import Installed

PLUGIN_SOURCE = """
from atomr_infer.model.deployment import Deployment
from atomr_infer.testing.mock import MockPlugin

class Plugin(MockPlugin):
    name = {name!r}
    def missing(self):
        return {missing!r}
    def environment_deployments(self, environ):
        if {variable!r} not in environ:
            return ()
        return (Deployment(name=self.name + "-env", runtime=self.name),)
    def demo_deployment(self):
        if not {demo!r}:
            return None
        return Deployment(name=self.name + "-demo", runtime=self.name)

PLUGIN = Plugin()
"""


@pytest.fixture
def install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., Installed]:
    """Return a function that installs plugins and answers what is installed."""
    monkeypatch.syspath_prepend(tmp_path)

    def add(
        name: str,
        *,
        source: str = PLUGIN_SOURCE,
        missing: tuple[str, ...] = (),
        demo: bool = False,
    ) -> Installed:
        module = f"{tmp_path.name.replace('-', '_')}_{name}"
        filled = source.format(
            name=name, missing=missing, variable=f"{name.upper()}_KEY", demo=demo
        )
        (tmp_path / f"{module}.py").write_text(filled)
        info = tmp_path / f"{name}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\n")
        (info / "entry_points.txt").write_text(
            f"[atomr_infer.runtimes]\n{name} = {module}:PLUGIN\n"
        )
        return lambda: distributions(path=[str(tmp_path)])

    return add


def test_each_key_in_the_environment_brings_its_deployment(
    install: Callable[..., Installed],
) -> None:
    install("two")
    install("one")
    installed = install("three")

    assert environment_deployments(
        {"ONE_KEY": "1", "TWO_KEY": "2"}, installed
    ) == Discovery(
        (
            Deployment(name="one-env", runtime="one"),
            Deployment(name="two-env", runtime="two"),
        )
    )


def test_a_plugin_that_cannot_be_imported_is_reported_and_the_rest_serve(
    install: Callable[..., Installed],
) -> None:
    install("bad", source="import no_such_module_anywhere")
    installed = install("good", demo=True)

    for found in (
        environment_deployments({"GOOD_KEY": "1"}, installed),
        demo_deployment(installed),
    ):
        assert [deployment.runtime for deployment in found.deployments] == ["good"]
        [notice] = found.notices
        assert notice.startswith("runtime 'bad' (")
        assert "No module named 'no_such_module_anywhere'" in notice


def test_a_runtime_that_is_asked_for_and_lacks_packages_is_reported(
    install: Callable[..., Installed],
) -> None:
    installed = install("needy", missing=("engine-x",), demo=True)
    nothing = Discovery(
        (), ("runtime 'needy' needs the package engine-x; run: pip install engine-x",)
    )

    assert environment_deployments({"NEEDY_KEY": "1"}, installed) == nothing
    assert demo_deployment(installed) == nothing


def test_a_runtime_that_nobody_asked_for_may_lack_packages_in_silence(
    install: Callable[..., Installed],
) -> None:
    installed = install("needy", missing=("engine-x",))

    assert environment_deployments({}, installed) == Discovery()
    assert demo_deployment(installed) == Discovery()


def test_the_first_runtime_with_a_demo_wins(install: Callable[..., Installed]) -> None:
    install("zeta", demo=True)
    install("beta", demo=True)
    installed = install("alpha")

    assert demo_deployment(installed) == Discovery(
        (Deployment(name="beta-demo", runtime="beta"),)
    )


def test_the_installed_runtimes_can_all_be_asked() -> None:
    assert environment_deployments({}).deployments == ()
