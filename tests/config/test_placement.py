"""``[deployment.placement]``: what is read, and what is said of mistakes."""

from __future__ import annotations

import pytest

from atomr_infer.config.load import parse_config
from atomr_infer.errors import ConfigError
from atomr_infer.model.placement import Check, Placement, Role

HEAD = '[[deployment]]\nname = "tiny"\nruntime = "mock"\n[deployment.placement]\n'


def placement(text: str) -> Placement:
    [deployment] = parse_config(HEAD + text, "atomr.toml").deployments
    return deployment.placement


def test_all_keys_are_read() -> None:
    text = """
    roles = ["gpu", "egress"]
    labels = { region = ["eu", "us"], disk = "fast" }
    gpus = 2
    gpu_memory_gib = 40
    everywhere = false
    check = "none"
    """
    assert placement(text) == Placement(
        check=Check.NONE,
        roles={Role.GPU, Role.EGRESS},
        labels={"region": ("eu", "us"), "disk": ("fast",)},
        gpus=2,
        gpu_memory_gib=40,
        everywhere=False,
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("gpu = 2", "unknown key 'gpu'; did you mean 'gpus'?"),
        ('region = "eu"', 'did you mean labels = { region = "..." }?'),
        ("replicas = 2", r"it belongs under \[deployment.serving\]"),
        ('roles = "gpu"', "roles is no array of control, gpu, egress, edge"),
        ('roles = ["egres"]', "'egres' is no role; did you mean 'egress'?"),
        ('roles = [["gpu"]]', r"\['gpu'\] is no role; did you mean 'gpu'"),
        ("roles = [{ a = 1 }]", "{'a': 1} is no role; use control"),
        ('roles = ["x"]', "'x' is no role; use control, gpu, egress, edge"),
        ('labels = "eu"', "labels is a string, not a table"),
        ("labels = { region = 1 }", "region is a number, not a string or some"),
        ("labels = { region = [] }", "says nothing; name what the label may be"),
        ("gpus = -1", "gpus: -1 must be at least 0"),
        ("gpu_memory_gib = 4", "needs gpus; say how many a replica takes"),
        ('check = "model"', "'model' is not allowed; did you mean 'models'?"),
        ('everywhere = "yes"', "everywhere is a string, not true or false"),
        ('colocate_with = "tin"', "there is no deployment 'tin'"),
        ('colocate_with = "tiny"', "goes round in a circle: 'tiny', 'tiny'"),
    ],
)
def test_a_mistake_is_said_with_its_line(text: str, problem: str) -> None:
    with pytest.raises(ConfigError, match=problem) as caught:
        placement(text)
    assert (caught.value.path, caught.value.line) == ("atomr.toml", 5)


def test_a_name_that_is_nearly_right_is_suggested() -> None:
    other = '[[deployment]]\nname = "tiny-1"\nruntime = "mock"\n'
    with pytest.raises(ConfigError, match="no deployment 'tiny-2'; did you mean"):
        parse_config(other + HEAD + 'colocate_with = "tiny-2"', "atomr.toml")


def test_a_circle_is_told_once_with_its_way() -> None:
    text = "\n".join(
        f'[[deployment]]\nname = "{name}"\nruntime = "mock"\n'
        f'[deployment.placement]\ncolocate_with = "{other}"'
        for name, other in (("a", "b"), ("b", "c"), ("c", "b"))
    )
    with pytest.raises(ConfigError, match="circle: 'a', 'b', 'c', 'b'"):
        parse_config(text, "atomr.toml")
