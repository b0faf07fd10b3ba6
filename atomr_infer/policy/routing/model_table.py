"""Which deployment serves a model name that a client asked for.

Exact names win over patterns; among patterns the longest literal part wins,
then the order of deployment.  Deployments that serve the same name, or the same
pattern, are a group: each of them may answer, and the others when it fails.

A table is an immutable value: whoever deploys makes a new one, and a request
keeps the one it started with.

Pure.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs

from atomr_infer.errors import ConfigError, ModelNotFoundError
from atomr_infer.model.deployment import Deployment
from atomr_infer.policy.failures.fallback import check_chains

if TYPE_CHECKING:
    from collections.abc import Iterable


@attrs.frozen
class Route:
    """Where a request goes.

    Attributes:
        deployment: the deployment's name.
        model: what its runtime is asked for.
        others: the rest of its group, in order of deployment.
    """

    deployment: str
    model: str
    others: tuple[Route, ...] = ()

    @property
    def group(self) -> tuple[Route, ...]:
        """All who may answer, itself first."""
        return (self, *self.others)


@attrs.frozen
class ModelTable:
    """Public model names and patterns, each with its deployment."""

    _deployments: tuple[Deployment, ...] = ()
    _groups: Mapping[str, tuple[Deployment, ...]] = attrs.field(
        init=False, eq=False, repr=False
    )

    @_groups.default
    def _by_public_name(self) -> Mapping[str, tuple[Deployment, ...]]:
        groups: dict[str, tuple[Deployment, ...]] = {}
        for deployment in self._deployments:
            for name in dict.fromkeys(deployment.serves):
                groups[name] = (*groups.get(name, ()), deployment)
        return groups

    def with_deployment(
        self, deployment: Deployment, *, expected: frozenset[str] = frozenset()
    ) -> ModelTable:
        """Return a table that also routes to ``deployment``.

        Args:
            deployment: the new one.
            expected: names of deployments that will come.

        Raises:
            ConfigError: its name is taken; or it falls back to a deployment
                that is not there, or to itself by way of others.
        """
        if any(other.name == deployment.name for other in self._deployments):
            raise ConfigError(
                f"deployment {deployment.name!r} exists already; names are unique"
            )
        table = ModelTable((*self._deployments, deployment))
        table.check_fallbacks(deployment, expected)
        return table

    def with_changed(
        self, *deployments: Deployment, expected: frozenset[str] = frozenset()
    ) -> ModelTable:
        """Return a table with ``deployments`` in the places of those of their names.

        Args:
            deployments: the other ones.
            expected: names of deployments that will come.

        Raises:
            ConfigError: one falls back to a deployment that is not there, or to
                itself by way of others.
        """
        others = {deployment.name: deployment for deployment in deployments}
        table = ModelTable(tuple(others.get(d.name, d) for d in self._deployments))
        for deployment in deployments:
            table.check_fallbacks(deployment, expected)
        return table

    def with_in_its_place(self, deployment: Deployment) -> ModelTable:
        """Return a table with ``deployment`` in the place of that of its name."""
        name = deployment.name
        return ModelTable(
            tuple(deployment if d.name == name else d for d in self._deployments)
        )

    def check_fallbacks(self, deployment: Deployment, expected: frozenset[str]) -> None:
        """Check what a deployment of this table falls back to.

        Raises:
            ConfigError: to one that is not there, or to itself by way of others.
        """
        chains = {each.name: each.fallbacks for each in self._deployments}
        for fallback in deployment.fallbacks:
            if fallback.to not in chains and fallback.to not in expected:
                raise ConfigError(_no_fallback(deployment.name, fallback.to, chains))
        check_chains(chains, deployment.name)

    def without(self, name: str) -> ModelTable:
        """Return a table that no longer routes to the deployment ``name``."""
        return ModelTable(tuple(d for d in self._deployments if d.name != name))

    @property
    def deployments(self) -> tuple[Deployment, ...]:
        """All deployments, in the order in which they came."""
        return self._deployments

    def names(self) -> tuple[str, ...]:
        """All public names, patterns included, each once, in order of deployment."""
        return tuple(name for name, _ in self.owned_names())

    def owned_names(self) -> tuple[tuple[str, str], ...]:
        """Each public name with the first deployment that serves it."""
        return tuple((name, group[0].name) for name, group in self._groups.items())

    def resolve(self, model: str) -> Route:
        """Return the route for a public model name.

        Raises:
            ModelNotFoundError: nothing serves it; the message lists what is
                served, or the name that was probably meant; of a deployment's name
                it says what that one serves.

        >>> table = ModelTable((
        ...     Deployment(name="gpt", runtime="x", serves=("gpt-*", "openai/*")),
        ... ))
        >>> table.resolve("openai/o5").model
        'o5'
        >>> table.resolve("gpt-6")
        Route(deployment='gpt', model='gpt-6', others=())
        """
        served = model if model in self._groups else self._pattern(model)
        if served is None:
            raise self._not_found(model)
        first, *others = (
            Route(each.name, each.model or _asked(model, served))
            for each in self._groups[served]
        )
        return attrs.evolve(first, others=tuple(others)) if others else first

    def _pattern(self, model: str) -> str | None:
        """Return the pattern that ``model`` falls under."""
        found = (
            name
            for name in self._groups
            if _is_pattern(name) and fnmatch.fnmatchcase(model, name)
        )
        return max(found, key=_weight, default=None)

    def _not_found(self, model: str) -> ModelNotFoundError:
        names = self.names()
        if not names:
            return ModelNotFoundError(
                f"the model {model!r} does not exist: nothing is deployed",
                param="model",
            )
        named = next((d for d in self._deployments if d.name == model), None)
        close = difflib.get_close_matches(model, names, n=1)
        if named is not None:
            told = f"{model!r} is a deployment that serves {_listed(named.serves)}"
            hint = f"{_listing(names)}; {told}"
        else:
            hint = f"did you mean {close[0]!r}?" if close else _listing(names)
        return ModelNotFoundError(
            f"the model {model!r} does not exist; {hint}", param="model"
        )


def _is_pattern(name: str) -> bool:
    return "*" in name


def _weight(pattern: str) -> int:
    return len(pattern.replace("*", ""))


def _asked(model: str, pattern: str) -> str:
    """Take a routing prefix such as ``openai/`` off the name."""
    if pattern.endswith("/*"):
        return model.removeprefix(pattern[:-1])
    return model


def _listing(names: Iterable[str]) -> str:
    return f"served are {_listed(names)}"


def _listed(names: Iterable[str]) -> str:
    return ", ".join(repr(name) for name in names)


def _no_fallback(name: str, to: str, known: Iterable[str]) -> str:
    others = [other for other in known if other != name]
    close = difflib.get_close_matches(to, others, n=1)
    hint = f"did you mean {close[0]!r}?" if close else "deploy that one first"
    return f"deployment {name!r} cannot fall back to {to!r}: there is no such; {hint}"
