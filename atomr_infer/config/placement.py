"""The table ``[deployment.placement]`` to a :class:`Placement`.

Pure.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

from atomr_infer.config.reader import TableReader, type_name
from atomr_infer.model.placement import Check, Placement, Role
from atomr_infer.policy.lifecycle.colocation import colocation_problem

if TYPE_CHECKING:
    from atomr_infer.config.mistakes import Mistakes
    from atomr_infer.config.reader import Origin
    from atomr_infer.config.readings import Readings

_OTHER_WORDS = {
    "region": 'did you mean labels = { region = "..." }?',
    "node": 'did you mean labels = { node = "..." }, a label of that node alone?',
    "role": "did you mean 'roles'?",
    "gpu": "did you mean 'gpus'?",
    "gpu_memory": "did you mean 'gpu_memory_gib'?",
    "replicas": "it belongs under [deployment.serving]",
}

_ROLES = {role.value: role for role in Role}


def read_placement(table: TableReader) -> Placement:
    """Read where a deployment may run.

    Raises:
        ConfigError: a key is unknown, or a value is not allowed.
    """
    readers = {
        "roles": lambda: _roles(table),
        "labels": lambda: _labels(table),
        "everywhere": lambda: table.flag("everywhere"),
        **table.members(check=Check),
    }
    return table.read(Placement, readers, also=_OTHER_WORDS)


def _roles(table: TableReader) -> frozenset[Role]:
    given = table.content["roles"]
    if not isinstance(given, list) or not given:
        raise table.fail("roles", f"roles is no array of {', '.join(_ROLES)}")
    for name in given:
        if not isinstance(name, str) or name not in _ROLES:
            near = difflib.get_close_matches(str(name), _ROLES, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(_ROLES)}"
            raise table.fail("roles", f"{name!r} is no role; {hint}")
    return frozenset(_ROLES[name] for name in given)


def _labels(table: TableReader) -> dict[str, list[str]]:
    labels = table.table("labels")
    assert labels is not None, "the key is there"
    return {name: _texts(labels, name) for name in labels.content}


def _texts(labels: TableReader, name: str) -> list[str]:
    value = labels.content[name]
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(t, str) for t in texts):
        raise labels.fail(name, f"{name} is {type_name(value)}, not a string or some")
    return texts


def check_colocations(readings: Readings, origin: Origin, mistakes: Mistakes) -> None:
    """Keep who stands beside nobody, and circles.

    Args:
        readings: all deployments of the file.
        origin: the file.
        mistakes: where they are kept.
    """
    beside = {each.name: each.placement.colocate_with for each in readings.values}
    for index, deployment in readings:
        name, other = deployment.name, beside[deployment.name]
        problem = colocation_problem(name, beside)
        is_known = other in beside or readings.knows_names
        if other is None or problem is None or not is_known:
            continue
        where = ("deployment", index, "placement", "colocate_with")
        mistakes.keep(origin.error(where, f"deployment {name!r}: placement: {problem}"))
        beside[name] = None  # of one circle only one tells
