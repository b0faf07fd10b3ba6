"""A name is looked for before anything runs; what is wrong comes with its remedy."""

from __future__ import annotations

import pickle
import sys
from typing import TYPE_CHECKING, Any, cast, get_type_hints

import attrs
import pytest

from atomr_infer.actors import deployment_of
from atomr_infer.errors import ConfigError
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.ray import RayHost
from atomr_infer.model.secret import EnvSecret
from atomr_infer.runtimes.plugin_check import check_plugin
from atomr_infer_python.actor_plugin import PLUGIN as ACTORS
from atomr_infer_python.plugin import PLUGIN
from atomr_infer_python.target import Target, load_target, parse_target
from tests.plugins.python.conftest import OWN

if TYPE_CHECKING:
    from pathlib import Path

    from tests.plugins.python.conftest import Own


def refusal(deployment: Deployment) -> str:
    with pytest.raises(ConfigError) as caught:
        PLUGIN.validate(deployment)
    return str(caught.value)


def named(runtime: str) -> Deployment:
    return Deployment(name="own", runtime=runtime)


@pytest.mark.parametrize(
    ("runtime", "target"),
    [
        ("python:a.b:c", Target("a.b", "c")),
        ("python:a:C.d", Target("a", "C.d")),
        ("python:./x/a.py:c", Target("./x/a.py", "c")),
        ("python:/x: y/a.py:c", Target("/x: y/a.py", "c")),
    ],
)
def test_a_runtime_names_a_module_or_a_file(runtime: str, target: Target) -> None:
    assert parse_target(runtime) == target


@pytest.mark.parametrize(
    "runtime",
    ["python", "python:", "python:a", "python:a:", "python:a-b:c", "python::c"],
)
def test_another_form_is_refused_with_the_right_one(runtime: str) -> None:
    assert refusal(named(runtime)) == (
        f"runtime is {runtime!r}; write python:<module>:<attribute>, such as "
        "python:my_model:answer, or python:models/my_model.py:answer for a file"
    )


def test_a_module_that_is_nowhere_is_refused_with_the_places(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    said = refusal(named("python:no_such_module:answer"))
    assert said.startswith("there is no module 'no_such_module'; looked in ")
    assert str(tmp_path) in said
    assert sys.path[-1] in said
    assert said.endswith("or name its file: python:path/to/file.py:name")


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        (f"python:{OWN}:cuont", "'cuont' (runtime {runtime}); did you mean 'count'?"),
        (f"python:{OWN}:Modell", "did you mean 'Model'?"),
        (f"python:{OWN}.py:x", "there is no file '"),
        ("python:json.nothing:loads", "there is no module 'json.nothing'"),
        ("python:json:lods", "(runtime python:json:lods); did you mean 'loads'?"),
    ],
)
def test_a_name_that_is_not_there_is_refused(runtime: str, message: str) -> None:
    assert message.format(runtime=runtime) in refusal(named(runtime))


def test_looking_imports_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "heavy_package"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    (package / "model.py").write_text(
        "raise SystemExit('imported')\ndef answer(r): ..."
    )
    monkeypatch.chdir(tmp_path)
    PLUGIN.validate(named("python:heavy_package.model:answer"))
    assert "did you mean 'answer'?" in refusal(
        named("python:heavy_package.model:answr")
    )
    assert "heavy_package" not in sys.modules


@pytest.mark.parametrize(
    "source",
    [
        "from elsewhere import *",
        "def __getattr__(name): ...",
        "try:\n    import fast as answer\nexcept ImportError:\n    answer = None",
        "for answer in (): ...",
        "answer, other = 1, 2",
        "if True:\n    class answer: ...",
    ],
)
def test_what_only_a_run_tells_is_not_refused(
    source: str, tmp_path: Path, own: Own
) -> None:
    file = tmp_path / "made.py"
    file.write_text(source)
    PLUGIN.validate(own("answer", file=file))


@pytest.mark.parametrize("name", ["count", "Model"])
def test_a_credential_for_what_is_no_plugin_is_refused(own: Own, name: str) -> None:
    deployment = attrs.evolve(own(name), credential=EnvSecret("KEY"))
    assert refusal(deployment) == (
        f"deployment 'own': a credential is for runtime plugins, and {OWN}:{name} is "
        "none; leave it out, and have your code read the variable or the file"
    )


def test_a_credential_for_an_object_may_be_a_plugin_s(own: Own) -> None:
    PLUGIN.validate(attrs.evolve(own("READY"), credential=EnvSecret("KEY")))


def test_a_file_that_is_no_python_is_refused_with_the_line(
    tmp_path: Path, own: Own
) -> None:
    file = tmp_path / "broken.py"
    file.write_text("def answer(request):\n    yeild = (\n")
    said = refusal(own("answer", file=file))
    assert said.startswith(f"{file} is no Python: ")
    assert "line 2" in said


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("count", {"too": 3}, "takes no option 'too'; did you mean 'to'?"),
        ("whole", {"zzz": 3}, "takes no option 'zzz'; it takes: none"),
        ("needs", {}, "needs the option 'path'; write it under [deployment.options]"),
        ("Model", {"steps": 1}, "takes no option 'steps'; did you mean 'step_s'?"),
        ("Useless", {"a": 1}, "takes no option 'a'; it takes: none"),
        (
            "takes_nothing",
            {},
            "takes no request; write it as: async def answer(request): ...",
        ),
    ],
)
def test_options_are_what_the_code_takes(
    own: Own, name: str, options: dict[str, int], message: str
) -> None:
    assert refusal(own(name, **options)) == f"{OWN}:{name} {message}"


def test_the_model_is_an_option_where_one_is_called_so(own: Own) -> None:
    PLUGIN.validate(own("Model", model="/weights"))
    PLUGIN.validate(own("whole", model="/weights"))


def test_modules_of_another_interpreter_are_looked_for_there(own: Own) -> None:
    elsewhere = attrs.evolve(named("python:only_there:answer"), interpreter="/py")
    PLUGIN.validate(elsewhere)
    assert "there is no file" in refusal(
        attrs.evolve(named("python:/only/there.py:answer"), interpreter="/py")
    )


def test_an_import_that_fails_is_told_with_its_reason(tmp_path: Path) -> None:
    file = tmp_path / "lacking.py"
    file.write_text("import no_such_library\n\ndef answer(request): ...\n")
    with pytest.raises(ConfigError) as caught:
        load_target(Target(str(file), "answer"))
    assert str(caught.value) == (
        f"{file} cannot be imported: ModuleNotFoundError: No module named "
        "'no_such_library'"
    )
    with pytest.raises(ConfigError, match=r"has no 'dmups' .*did you mean 'dumps'"):
        load_target(Target("json", "dmups"))


def test_the_plugin_conforms(own: Own) -> None:
    check_plugin(PLUGIN, own("count"), heavy=("numpy", "jinja2", "ast_never"))


def test_a_module_in_folders_without_an_init_file_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = tmp_path / "one_of_mine" / "inside" / "further"
    inner.mkdir(parents=True)
    (inner / "models.py").write_text("def answer(request): ...")
    monkeypatch.chdir(tmp_path)

    PLUGIN.validate(named("python:one_of_mine.inside.further.models:answer"))
    assert "no module" in refusal(named("python:one_of_mine.inside.farther.m:answer"))


SAME = """
from __future__ import annotations
from dataclasses import KW_ONLY, dataclass
from typing import ClassVar
from atomr_infer.actors import Context, inference_actor

@dataclass
class %(inner)s:
    number: int

@dataclass
class Outer:
    count: ClassVar[int] = 0
    inner: %(inner)s
    _: KW_ONLY
    more: int = 0

@inference_actor
async def act(ctx: Context, text: str) -> str:
    return text
"""


def load(file: Path, name: str) -> Any:
    return cast("Any", load_target(Target(str(file), name)))


def test_two_files_of_one_name_are_two_modules_and_executed_once_each(
    tmp_path: Path,
) -> None:
    files = [tmp_path / inner / "same.py" for inner in ("First", "Second")]
    for file in files:
        file.parent.mkdir()
        file.write_text(SAME % {"inner": file.parent.name})

    for file in files:
        inner, outer = load(file, file.parent.name), load(file, "Outer")
        assert get_type_hints(outer)["inner"] is inner
        made = outer(inner(3), more=4)
        assert pickle.loads(pickle.dumps(made)) == made
        assert load(file, "Outer") is outer
    assert load(files[0], "Outer") is not load(files[1], "Outer")


def test_an_actor_of_a_file_is_deployed_by_its_file(tmp_path: Path) -> None:
    file = tmp_path / "by_file.py"
    file.write_text(SAME % {"inner": "Inner"})

    assert deployment_of(load(file, "act"), "a").runtime == f"actor:{file}:act"


def test_a_file_whose_import_failed_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "mended.py"
    file.write_text(SAME % {"inner": "Inner"} + "raise OSError('broken')\n")
    deployment = named(f"actor:{file}:act")
    for _ in range(2):
        with pytest.raises(ConfigError, match="cannot be imported: OSError: broken"):
            ACTORS.validate(deployment)

    file.write_text(SAME % {"inner": "Inner"})

    ACTORS.validate(deployment)


def test_a_file_that_is_only_on_rays_nodes_is_not_looked_for(own: Own) -> None:
    on_ray = attrs.evolve(named("python:/only/there.py:answer"), ray=RayHost())
    PLUGIN.validate(on_ray)

    here = attrs.evolve(own("count", too=3), ray=RayHost())
    assert "did you mean 'to'?" in refusal(here)


@pytest.mark.parametrize(("devices", "gpus"), [("2", 2.0), ("1", 0.5), ("0", 0.0)])
def test_an_actor_on_ray_has_the_gpus_that_ray_sets_aside(
    tmp_path: Path, own: Own, devices: str, gpus: float
) -> None:
    deployment = own("Big", file=big(tmp_path, devices))
    PLUGIN.validate(attrs.evolve(deployment, ray=RayHost(num_gpus=gpus)))


def test_an_actor_with_too_few_gpus_on_ray_is_refused_with_rays_option(
    tmp_path: Path, own: Own
) -> None:
    file = big(tmp_path, "2")
    ray = RayHost(num_gpus=0.5)
    assert refusal(attrs.evolve(own("Big", file=file), ray=ray)) == (
        f"{file}:Big needs 2 GPUs, and its deployment takes 0.5; write num_gpus = 2 "
        "under [deployment.ray]"
    )


def big(folder: Path, devices: str) -> Path:
    file = folder / "big.py"
    file.write_text(f"@gpu_actor(devices={devices})\nclass Big:\n    pass\n")
    return file
