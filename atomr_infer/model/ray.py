"""Where in a Ray cluster an engine runs: a value of a `Deployment`.

Pure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import attrs

from atomr_infer.model.validation import (
    InvalidValueError,
    non_empty,
    not_negative,
    positive,
)

AUTO = "auto"

_MAX_PORT = 65535
_HAS_A_KEY = {"CPU": "num_cpus", "GPU": "num_gpus"}
_RAYS_OWN = ("memory", "object_store_memory")


def _is_address(_: object, field: attrs.Attribute[Any], address: str) -> None:
    if address == AUTO:
        return
    host, _, port = address.rpartition(":")
    if not host or not _is_port(port) or "/" in host:
        problem = 'is no address of a Ray cluster; write "HOST:PORT" or "auto"'
        raise InvalidValueError(field.name, address, problem)


def _is_port(text: str) -> bool:
    # int() reads the digits of all scripts, and refuses thousands of them.
    is_number = text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT))
    return is_number and 1 <= int(text) <= _MAX_PORT


def _are_gpus(_: object, field: attrs.Attribute[Any], gpus: float) -> None:
    if gpus > 1 and gpus != int(gpus):
        problem = f"is neither whole nor a part of one; write {math.ceil(gpus)}"
        raise InvalidValueError(field.name, gpus, problem)


def _as_amounts(amounts: Mapping[str, float]) -> Mapping[str, float]:
    return dict(amounts)


def _are_amounts(_: object, field: attrs.Attribute[Any], amounts: object) -> None:
    assert isinstance(amounts, Mapping), "converted"
    for name, amount in amounts.items():
        if (key := _HAS_A_KEY.get(name)) is not None:
            problem = f"has a key of its own; write {key}"
            raise InvalidValueError(field.name, name, problem)
        if name in _RAYS_OWN:
            raise InvalidValueError(field.name, name, "is Ray's own; leave it out")
        positive(_, field, amount)


@attrs.frozen(kw_only=True)
class RayHost:
    """What a Ray cluster sets aside for each replica of a deployment.

    Attributes:
        address: the cluster's, as ``HOST:PORT``; ``auto``: the one that this machine
            belongs to.
        num_gpus: GPUs for each replica, all of one node of Ray's; a part of one, such
            as 0.5, is one that others use too.  More than one is a whole number.
        num_cpus: CPUs for each replica.
        resources: amounts of Ray's own resources, such as ``{ "TPU" = 4 }``.
        interpreter: the Python on this machine that has Ray, and the same atomr-infer.
            None: this one.

    >>> RayHost(num_gpus=2).wanted
    '2 GPU, 1 CPU'
    """

    address: str = attrs.field(default=AUTO, validator=[non_empty, _is_address])
    num_gpus: float = attrs.field(default=0.0, validator=[not_negative, _are_gpus])
    num_cpus: float = attrs.field(default=1.0, validator=not_negative)
    resources: Mapping[str, float] = attrs.field(
        factory=dict, converter=_as_amounts, validator=_are_amounts, hash=False
    )
    interpreter: str | None = attrs.field(
        default=None, validator=attrs.validators.optional(non_empty)
    )

    @property
    def wanted(self) -> str:
        """What is set aside, in words."""
        amounts = {"GPU": self.num_gpus, "CPU": self.num_cpus, **self.resources}
        told = [f"{amount:g} {name}" for name, amount in amounts.items() if amount]
        return ", ".join(told) or "nothing"
