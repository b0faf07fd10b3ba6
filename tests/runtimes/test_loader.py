"""The loader finds plugins by metadata and refuses what does not fit."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import Distribution
from typing import TYPE_CHECKING

import pytest

from atomr_infer.errors import PluginError
from atomr_infer.runtimes.contract import Host
from atomr_infer.runtimes.loader import (
    RuntimeEntry,
    check_shape,
    ensure_available,
    list_runtimes,
    load_runtime,
    plugin_ref,
)
from atomr_infer.testing.mock import PLUGIN, MockPlugin

if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.metadata._meta import SimplePath
    from os import PathLike

    from tests.runtimes.conftest import Site

ENTRY = RuntimeEntry("mock", "somewhere:PLUGIN", "some-dist")


def test_runtimes_are_listed_by_name_with_their_distribution(site: Site) -> None:
    site.add("zeta-dist", entry_points="zeta = zeta_plugin:PLUGIN")
    site.add("alpha-dist", entry_points="alpha = alpha_plugin.deep:the.plugin")

    assert list_runtimes(site.installed) == (
        RuntimeEntry("alpha", "alpha_plugin.deep:the.plugin", "alpha-dist"),
        RuntimeEntry("zeta", "zeta_plugin:PLUGIN", "zeta-dist"),
    )


def test_metadata_is_read_once_of_distributions_with_plugins_only(site: Site) -> None:
    site.add("plain-dist", entry_points="")
    site.add("alpha-dist", entry_points="alpha = alpha_plugin:A\nbeta = beta_plugin:B")
    read: list[str] = []

    class Noting(Distribution):
        def __init__(self, found: Distribution) -> None:
            self._found = found

        def read_text(self, filename: str) -> str | None:
            if filename == "METADATA":
                read.append(self._found.name)
            return self._found.read_text(filename)

        def locate_file(self, path: str | PathLike[str]) -> SimplePath:
            return self._found.locate_file(path)

    entries = list_runtimes(lambda: [Noting(found) for found in site.installed()])

    assert [entry.name for entry in entries] == ["alpha", "beta"]
    assert read == ["alpha-dist"]


def test_what_is_installed_later_is_found_and_what_is_removed_is_not(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site.folder)
    before = list_runtimes()
    assert list_runtimes() == before
    site.add("later-dist", entry_points="later = later_plugin:PLUGIN")
    after = list_runtimes()
    shutil.rmtree(site.folder / "later_dist-1.0.dist-info")

    assert {entry.name for entry in after} - {entry.name for entry in before} == {
        "later"
    }
    assert list_runtimes() == before


def test_the_runtimes_of_this_distribution_are_registered() -> None:
    entries = list_runtimes()

    assert RuntimeEntry(
        "mock", "atomr_infer.testing.mock:PLUGIN", "atomr-infer"
    ) in set(entries)


def test_listing_imports_no_plugin() -> None:
    program = (
        "import sys\n"
        "from atomr_infer.runtimes.loader import list_runtimes\n"
        "entries = list_runtimes()\n"
        "modules = {entry.value.partition(':')[0] for entry in entries}\n"
        "assert 'atomr_infer.testing.mock' in modules\n"
        "print(sorted(modules & set(sys.modules)))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout == "[]\n"


def test_one_name_from_two_distributions_is_refused_and_both_are_named(
    site: Site,
) -> None:
    site.add("one-dist", entry_points="twin = one_plugin:PLUGIN")
    site.add("two-dist", entry_points="twin = two_plugin:PLUGIN")

    with pytest.raises(PluginError, match="two plugins are called 'twin'") as raised:
        list_runtimes(site.installed)

    for part in ("one_plugin:PLUGIN from one-dist", "two_plugin:PLUGIN from two-dist"):
        assert part in str(raised.value)


def test_a_distribution_that_is_found_twice_is_counted_once(site: Site) -> None:
    site.add("same-dist", entry_points="alpha = alpha_plugin:PLUGIN")

    entries = list_runtimes(lambda: [*site.installed(), *site.installed()])

    assert [entry.name for entry in entries] == ["alpha"]


def test_an_entry_without_an_attribute_is_refused(site: Site) -> None:
    site.add("odd-dist", entry_points="odd = odd_plugin")

    with pytest.raises(PluginError) as raised:
        list_runtimes(site.installed)

    assert str(raised.value) == (
        "runtime 'odd' from odd-dist is registered as 'odd_plugin', "
        "which is not of the form module:attribute"
    )


def test_loading_gives_the_object_that_the_entry_names() -> None:
    assert load_runtime("mock") is PLUGIN
    assert plugin_ref("mock") == "atomr_infer.testing.mock:PLUGIN"


def test_an_unknown_name_gets_the_nearest_one(site: Site) -> None:
    site.add("dist-a", entry_points="mistralrs = a:PLUGIN\nopenai = b:PLUGIN")

    with pytest.raises(PluginError) as raised:
        load_runtime("mistalrs", site.installed)

    assert str(raised.value) == (
        "no runtime is called 'mistalrs'; did you mean 'mistralrs'? "
        "installed: mistralrs, openai"
    )


def test_an_unknown_name_with_nothing_installed_says_so(site: Site) -> None:
    with pytest.raises(PluginError) as raised:
        plugin_ref("openai", site.installed)

    assert str(raised.value) == "no runtime is called 'openai'; installed: none"


def test_a_name_that_is_an_extra_of_ours_gets_the_install_command(site: Site) -> None:
    site.add("atomr-infer", extras=("vllm", "default-prod"))

    with pytest.raises(PluginError) as raised:
        load_runtime("vllm", site.installed)

    assert str(raised.value) == (
        "runtime 'vllm' is not installed; run: pip install 'atomr-infer[vllm]'"
    )


def test_an_extra_of_another_distribution_is_not_offered(site: Site) -> None:
    site.add("elsewhere", extras=("vllm",))

    with pytest.raises(PluginError, match="no runtime is called 'vllm'"):
        load_runtime("vllm", site.installed)


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("import no_such_module_anywhere", ModuleNotFoundError),
        ("raise RuntimeError('no device')", RuntimeError),
        ("OTHER = 1", AttributeError),
        ("def broken(:", SyntaxError),
    ],
)
def test_an_import_that_fails_is_named_and_chained(
    site: Site,
    plugin_module: Callable[[str, str], None],
    source: str,
    cause: type[Exception],
) -> None:
    module = f"plugin_failing_with_{cause.__name__.lower()}"
    plugin_module(module, source)
    site.add("bad-dist", entry_points=f"bad = {module}:PLUGIN")

    with pytest.raises(PluginError) as raised:
        load_runtime("bad", site.installed)

    assert str(raised.value).startswith(
        f"runtime 'bad' ({module}:PLUGIN, from bad-dist) cannot be imported: "
        f"{cause.__name__}: "
    )
    assert type(raised.value.__cause__) is cause


def test_everything_that_is_wrong_with_a_plugin_is_said_at_once(
    site: Site, plugin_module: Callable[[str, str], None]
) -> None:
    plugin_module(
        "plugin_without_shape",
        "class P:\n    name = 'other'\n    summary = ' '\n    host = 'in-process'\n"
        "    missing = ()\n    def validate(self, deployment): ...\nPLUGIN = P()\n",
    )
    site.add("bad-dist", entry_points="bad = plugin_without_shape:PLUGIN")

    with pytest.raises(PluginError) as raised:
        load_runtime("bad", site.installed)

    assert str(raised.value) == (
        "runtime 'bad' (plugin_without_shape:PLUGIN, from bad-dist) is not a runtime "
        "plugin: name is 'other', but it is registered as 'bad'; summary is ' ', not a "
        "line of text; host is 'in-process', not a member of Host; missing() is "
        "missing; open_runner() is missing; environment_deployments() is missing; "
        "demo_deployment() is missing"
    )


def test_a_class_in_place_of_an_instance_is_refused() -> None:
    with pytest.raises(PluginError, match="it is the class MockPlugin, not an inst"):
        check_shape(MockPlugin, ENTRY)


def test_a_plugin_of_the_right_shape_passes() -> None:
    assert check_shape(PLUGIN, ENTRY) is PLUGIN
    assert PLUGIN.host is Host.IN_PROCESS


class Needy(MockPlugin):
    """A plugin whose packages are not there."""

    name = "needy"

    def missing(self) -> tuple[str, ...]:
        return ("gguf", "engine-x")


def test_missing_packages_of_our_own_runtime_are_installed_by_its_extra(
    site: Site,
) -> None:
    site.add("atomr-infer", extras=("needy",))

    with pytest.raises(PluginError) as raised:
        ensure_available(Needy(), site.installed)

    assert str(raised.value) == (
        "runtime 'needy' needs the packages gguf, engine-x; "
        "run: pip install 'atomr-infer[needy]'"
    )


class Apart(Needy):
    """A plugin that belongs into an environment of its own."""

    def install_apart(self) -> str:
        return "make one"


def test_a_runtime_with_an_environment_of_its_own_says_how_it_is_made(
    site: Site,
) -> None:
    site.add("atomr-infer", extras=("needy",))
    with pytest.raises(PluginError, match=r"gguf, engine-x; run: make one$"):
        ensure_available(Apart(), site.installed)


def test_missing_packages_of_a_foreign_runtime_are_installed_by_name(
    site: Site,
) -> None:
    with pytest.raises(PluginError) as raised:
        ensure_available(Needy(), site.installed)

    assert str(raised.value) == (
        "runtime 'needy' needs the packages gguf, engine-x; "
        "run: pip install gguf engine-x"
    )


def test_a_plugin_that_misses_nothing_is_available() -> None:
    ensure_available(PLUGIN)
