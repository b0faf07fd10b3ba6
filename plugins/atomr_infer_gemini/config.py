"""A deployment's ``[options]`` for the gemini runtime, checked.

With ``project`` it is Vertex AI, and without it AI Studio.

Pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import attrs
import msgspec

from atomr_infer.errors import ConfigError
from atomr_infer.remote.http.origin import parse_base_url
from atomr_infer.remote.options import HTTP2, Options

if TYPE_CHECKING:
    from atomr_infer.model.deployment import Deployment
    from atomr_infer.model.parts import RawJson

# The first one is the default: on AI Studio thinking, tools and schemas come to
# v1beta first.
_STUDIO_VERSIONS = ("v1beta", "v1")
_VERTEX_VERSIONS = ("v1", "v1beta1")

_GLOBAL = "global"

# Regions of several places have a host of their own form.
_WIDE_REGIONS = frozenset({"us", "eu"})

_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]{0,99}")

_CATEGORY = re.compile(r"HARM_CATEGORY_[A-Z_]{1,60}")
_THRESHOLDS = (
    "BLOCK_LOW_AND_ABOVE",
    "BLOCK_MEDIUM_AND_ABOVE",
    "BLOCK_ONLY_HIGH",
    "BLOCK_NONE",
    "OFF",
)


@attrs.frozen(kw_only=True)
class GeminiOptions:
    """What only the gemini runtime understands.

    Attributes:
        endpoint: base URL without a version; Google's own, where none is given.
        api_version: ``v1beta`` or ``v1``; on Vertex ``v1``, the default there,
            or ``v1beta1``.
        project: Google Cloud project; makes it Vertex AI.
        region: Vertex's region, such as ``europe-west4``; None: ``global``.
        safety_settings: thresholds by harm category, for requests that bring
            none.
        cached_content: name of a cached context, for requests that bring none.
        http2: ``"off"``; ``"alpn"``: where the server agrees on it; or
            ``"prior-knowledge"``: spoken at once.
    """

    project: str | None = None
    region: str | None = None
    endpoint: str = attrs.field()
    api_version: str = "v1beta"
    safety_settings: Mapping[str, str] = attrs.field(factory=dict, hash=False)
    cached_content: str | None = None
    http2: str = "off"

    @endpoint.default
    def _own_endpoint(self) -> str:
        return own_endpoint(self.project, self.region)

    @property
    def is_vertex(self) -> bool:
        """True for Vertex AI."""
        return self.project is not None

    @property
    def needs_credential(self) -> bool:
        """True for Google itself; a proxy may take anyone."""
        return parse_base_url(self.endpoint).origin.host.endswith(".googleapis.com")

    @property
    def root(self) -> str:
        """The path behind which collections such as ``models`` stand."""
        if not self.is_vertex:
            return f"/{self.api_version}"
        where = f"projects/{self.project}/locations/{self.region or _GLOBAL}"
        return f"/{self.api_version}/{where}"

    @property
    def defaults(self) -> Mapping[str, RawJson]:
        """Members of requests that do not have them, as raw JSON."""
        members: dict[str, object] = {}
        if self.safety_settings:
            members["safetySettings"] = [
                {"category": category, "threshold": threshold}
                for category, threshold in self.safety_settings.items()
            ]
        if self.cached_content is not None:
            members["cachedContent"] = self.cached_content
        return {name: msgspec.json.encode(value) for name, value in members.items()}


def own_endpoint(project: str | None, region: str | None) -> str:
    """Return Google's own address, without a version.

    >>> own_endpoint("p", "europe-west4")
    'https://europe-west4-aiplatform.googleapis.com'
    """
    if project is None:
        return "https://generativelanguage.googleapis.com"
    if region in {None, _GLOBAL}:
        return "https://aiplatform.googleapis.com"
    if region in _WIDE_REGIONS:
        return f"https://aiplatform.{region}.rep.googleapis.com"
    return f"https://{region}-aiplatform.googleapis.com"


def parse_options(deployment: Deployment) -> GeminiOptions:
    """Return a deployment's options.

    Raises:
        ConfigError: names the option, its value and what is allowed.
    """
    options = Options(deployment, [field.name for field in attrs.fields(GeminiOptions)])
    project = _name(options, "project")
    region = _name(options, "region")
    if region is not None and project is None:
        raise options.problem("region", "needs the option project: it is Vertex AI's")
    read = GeminiOptions(
        project=project,
        region=region,
        safety_settings=_safety_settings(deployment, options),
        cached_content=options.text("cached_content"),
    )
    versions = _STUDIO_VERSIONS if project is None else _VERTEX_VERSIONS
    endpoint = options.base_url("endpoint", read.endpoint).rstrip("/")
    # Written with the version by who knows OpenAI's habit.
    root, _, last = endpoint.rpartition("/")
    return attrs.evolve(
        read,
        endpoint=root if last in versions else endpoint,
        api_version=options.one_of("api_version", versions, versions[0]),
        http2=options.one_of("http2", HTTP2, "off"),
    )


def check_deployment(deployment: Deployment) -> None:
    """Refuse a deployment that this runtime could never run.

    Raises:
        ConfigError: an option is wrong, or Google's own endpoint has no key.
    """
    options = parse_options(deployment)
    has_key = deployment.credential is not None or deployment.credentials
    if options.needs_credential and not has_key:
        remedy = (
            'write credential = { provider = "google" } and its key'
            if options.is_vertex
            else "name the environment variable or the file that holds the API key"
        )
        raise ConfigError(
            f"deployment {deployment.name!r}: {options.endpoint} needs a credential;"
            f" {remedy}"
        )


def _name(options: Options, option: str) -> str | None:
    value = options.text(option)
    if value is not None and _NAME.fullmatch(value) is None:
        problem = f"must be made of small letters, digits and hyphens, not {value!r}"
        raise options.problem(option, problem)
    return value


def _safety_settings(deployment: Deployment, options: Options) -> dict[str, str]:
    given = deployment.options.get("safety_settings", {})
    if not isinstance(given, Mapping):
        problem = "must be a table of harm categories and thresholds"
        raise options.problem("safety_settings", problem)
    settings: dict[str, str] = {}
    for category, threshold in given.items():
        option = f"safety_settings.{category}"
        if _CATEGORY.fullmatch(category) is None:
            raise options.problem(option, "must be named HARM_CATEGORY_...")
        if not isinstance(threshold, str) or threshold not in _THRESHOLDS:
            words = ", ".join(_THRESHOLDS)
            raise options.problem(option, f"must be one of {words}, not {threshold!r}")
        settings[category] = threshold
    return settings
