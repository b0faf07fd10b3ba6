"""Options of the gemini runtime, and what the environment alone asks for."""

from __future__ import annotations

from typing import Any

import pytest

from atomr_infer.errors import ConfigError, ModelNotFoundError, UpstreamAuthError
from atomr_infer.model.asks import Effort
from atomr_infer.model.capabilities import Capabilities, Feature, ThinkingStyle
from atomr_infer.model.deployment import Deployment
from atomr_infer.model.dialect import Dialect
from atomr_infer.model.secret import EnvSecret, PluginSecret
from atomr_infer.model.selectors import SELECTORS
from atomr_infer.remote.credentials.keys import fixed
from atomr_infer.wire.gemini.upstream_media import FETCHED_PREFIXES
from atomr_infer_gemini import paths
from atomr_infer_gemini.config import GeminiOptions, parse_options
from atomr_infer_gemini.models import TABLE, capabilities_of, model_of
from atomr_infer_gemini.plugin import PLUGIN
from atomr_infer_gemini.runner import open_gemini_runner


def _deployment(credential: EnvSecret | None = None, **options: Any) -> Deployment:
    return Deployment(
        name="up", runtime="gemini", credential=credential, options=options
    )


# --- options ----------------------------------------------------------------


def test_options_of_ai_studio_are_read() -> None:
    settings = {"HARM_CATEGORY_HARASSMENT": "BLOCK_NONE"}
    options = parse_options(
        _deployment(
            endpoint="http://h/prefix",
            api_version="v1",
            safety_settings=settings,
            cached_content="cachedContents/1",
        )
    )
    assert options == GeminiOptions(
        endpoint="http://h/prefix",
        api_version="v1",
        safety_settings=settings,
        cached_content="cachedContents/1",
    )
    assert options.root == "/v1"
    assert options.defaults == {
        "safetySettings": (
            b'[{"category":"HARM_CATEGORY_HARASSMENT","threshold":"BLOCK_NONE"}]'
        ),
        "cachedContent": b'"cachedContents/1"',
    }


@pytest.mark.parametrize(
    ("given", "endpoint", "root"),
    [
        ({}, "https://generativelanguage.googleapis.com", "/v1beta"),
        (
            {"project": "p"},
            "https://aiplatform.googleapis.com",
            "/v1/projects/p/locations/global",
        ),
        (
            {"project": "p", "region": "europe-west4", "api_version": "v1beta1"},
            "https://europe-west4-aiplatform.googleapis.com",
            "/v1beta1/projects/p/locations/europe-west4",
        ),
        (
            {"project": "p", "region": "eu"},
            "https://aiplatform.eu.rep.googleapis.com",
            "/v1/projects/p/locations/eu",
        ),
    ],
)
def test_address_follows_project_and_region(
    given: dict[str, Any], endpoint: str, root: str
) -> None:
    options = parse_options(_deployment(**given))
    assert (options.endpoint, options.root) == (endpoint, root)
    assert options.defaults == {}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projct": "x"}, "option 'projct' is not known; did you mean 'project'?"),
        ({"endpoint": "h"}, "'h' does not start with http"),
        ({"api_version": "v2"}, "option 'api_version' must be one of v1beta, v1, not"),
        ({"project": "p", "api_version": "v1beta"}, "must be one of v1, v1beta1"),
        ({"project": "a/b"}, "option 'project' must be made of small letters"),
        ({"project": 7}, "option 'project' must be a text"),
        ({"region": "us-east1"}, "option 'region' needs the option project"),
        ({"project": "p", "region": "x.evil/"}, "option 'region' must be made of"),
        ({"safety_settings": "x"}, "option 'safety_settings' must be a table"),
        ({"safety_settings": {"X": "OFF"}}, "must be named HARM_CATEGORY_..."),
        (
            {"safety_settings": {"HARM_CATEGORY_X": "MAYBE"}},
            "option 'safety_settings.HARM_CATEGORY_X' must be one of BLOCK_LOW",
        ),
        ({"cached_content": ""}, "option 'cached_content' must be a text"),
    ],
)
def test_wrong_option_is_refused_with_its_name(options: Any, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        PLUGIN.validate(_deployment(EnvSecret("K"), **options))
    assert message in str(caught.value)
    assert "deployment 'up'" in str(caught.value)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({}, "holds the API key"),
        ({"endpoint": "https://generativelanguage.googleapis.com/"}, "API key"),
        ({"project": "p"}, 'provider = "google"'),
    ],
)
async def test_google_itself_needs_a_credential(options: Any, remedy: str) -> None:
    with pytest.raises(ConfigError, match="needs a credential") as caught:
        PLUGIN.validate(_deployment(**options))
    assert remedy in str(caught.value)
    PLUGIN.validate(_deployment(EnvSecret("K"), **options))
    with pytest.raises(UpstreamAuthError, match="no key for https://"):
        async with open_gemini_runner(_deployment(**options), fixed(None)):
            pytest.fail("opened")


@pytest.mark.parametrize("last", ["", "/", "/v1beta", "/v1/"])
def test_a_version_in_the_endpoint_is_taken_off(last: str) -> None:
    assert parse_options(_deployment(endpoint=f"http://h{last}")).endpoint == "http://h"


def test_another_endpoint_needs_none() -> None:
    PLUGIN.validate(_deployment(endpoint="http://127.0.0.1:8000"))


# --- the environment --------------------------------------------------------


@pytest.mark.parametrize(
    ("environ", "variable"),
    [
        ({"GEMINI_API_KEY": "k"}, "GEMINI_API_KEY"),
        ({"GOOGLE_API_KEY": "k"}, "GOOGLE_API_KEY"),
        ({"GEMINI_API_KEY": "k", "GOOGLE_API_KEY": "k"}, "GOOGLE_API_KEY"),
        ({"GEMINI_API_KEY": "k", "GOOGLE_API_KEY": " "}, "GEMINI_API_KEY"),
    ],
)
def test_key_in_the_environment_is_a_deployment(
    environ: dict[str, str], variable: str
) -> None:
    assert PLUGIN.environment_deployments(environ) == (
        Deployment(
            name="gemini",
            runtime="gemini",
            serves=("gemini-*", "gemini/*", "google/*"),
            credential=EnvSecret(variable),
        ),
    )


def test_base_url_in_the_environment_is_the_endpoint() -> None:
    environ = {"GEMINI_API_KEY": "k", "GOOGLE_GEMINI_BASE_URL": "http://h"}
    [wanted] = PLUGIN.environment_deployments(environ)
    assert wanted.options == {"endpoint": "http://h"}


def test_vertex_in_the_environment_is_a_deployment() -> None:
    environ = {
        "GOOGLE_GENAI_USE_VERTEXAI": "True",
        "GOOGLE_CLOUD_PROJECT": "p",
        "GOOGLE_CLOUD_LOCATION": "europe-west4",
        "GEMINI_API_KEY": "k",
    }
    [wanted] = PLUGIN.environment_deployments(environ)
    assert wanted.credential == PluginSecret("google")
    assert wanted.options == {"project": "p", "region": "europe-west4"}
    PLUGIN.validate(wanted)


@pytest.mark.parametrize(
    "environ", [{"GEMINI_API_KEY": ""}, {"GOOGLE_GENAI_USE_VERTEXAI": "1"}]
)
def test_environment_without_a_key_asks_for_nothing(environ: dict[str, str]) -> None:
    assert PLUGIN.environment_deployments(environ) == ()


# --- models -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "style", "levels", "signed"),
    [
        ("gemini-3-pro-preview", ThinkingStyle.EFFORT, (Effort.LOW, Effort.HIGH), True),
        (
            "gemini-3-flash-preview",
            ThinkingStyle.EFFORT,
            (Effort.MINIMAL, Effort.LOW, Effort.MEDIUM, Effort.HIGH),
            True,
        ),
        (
            "gemini-3.8-flash",
            ThinkingStyle.EFFORT,
            (Effort.LOW, Effort.MEDIUM, Effort.HIGH),
            True,
        ),
        (
            "models/gemini-9-new",
            ThinkingStyle.EFFORT,
            (Effort.LOW, Effort.MEDIUM, Effort.HIGH),
            True,
        ),
    ],
)
def test_newer_models_think_by_level_and_want_signed_calls(
    name: str, style: ThinkingStyle, levels: tuple[Effort, ...], signed: bool
) -> None:
    model = model_of(name)
    assert (model.thinking.style, model.thinking.levels) == (style, levels)
    assert (model.rules.signed_calls, model.thinking.can_be_off) == (signed, False)
    assert model.rules.json_beside_tools
    assert model.rules.media_in_results


@pytest.mark.parametrize(
    ("name", "least", "most", "can_be_off"),
    [
        ("gemini-2.5-pro", 128, 32_768, False),
        ("models/gemini-2.5-pro", 128, 32_768, False),
        ("publishers/google/models/gemini-2.5-pro", 128, 32_768, False),
        ("gemini-2.5-flash", 1, 24_576, True),
        ("gemini-2.5-flash-lite-001", 512, 24_576, True),
    ],
)
def test_older_models_think_by_budget(
    name: str, least: int, most: int, can_be_off: bool
) -> None:
    thinking = model_of(name).thinking
    assert thinking.style is ThinkingStyle.BUDGET
    assert (thinking.min_budget, thinking.max_budget) == (least, most)
    assert thinking.can_be_off is can_be_off
    assert not model_of(name).rules.json_beside_tools
    assert not model_of(name).rules.media_in_results


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("gemini-2.0-flash", Feature.REASONING),
        ("gemini-2.5-flash-image", Feature.TOOLS),
        ("gemini-2.5-pro-preview-tts", Feature.IMAGES),
        ("gemini-embedding-001", Feature.CHAT),
        ("text-embedding-005", Feature.CHAT),
        ("gemma-3-27b-it", Feature.TOOLS),
        ("gemini-2.5-pro", Feature.PREFILL),
        ("gemini-2.5-pro", Feature.IMAGE_URLS),
    ],
)
def test_what_a_model_lacks_is_refused_before_it_is_asked(
    name: str, absent: Feature
) -> None:
    assert absent not in capabilities_of(name).features


def test_capabilities_name_the_dialect_and_the_urls_that_google_fetches() -> None:
    capabilities = capabilities_of("gemini-2.5-pro")
    assert capabilities == Capabilities(
        features=capabilities.features,
        sampling=capabilities.sampling,
        max_concurrency=256,
        context_tokens=1_048_576,
        max_output_tokens=65_536,
        thinking=ThinkingStyle.BUDGET,
        passes=frozenset({Dialect.GEMINI}),
        extra_of=frozenset({Dialect.GEMINI}),
        url_prefixes=FETCHED_PREFIXES,
        selectors=SELECTORS,
    )


def test_every_row_of_the_table_can_be_reached() -> None:
    reached = {id(model_of(pattern.replace("*", ""))) for pattern, _ in TABLE[:-1]}
    assert reached == {id(model) for _, model in TABLE[:-1]}


# --- paths ------------------------------------------------------------------

STUDIO = GeminiOptions()
VERTEX = GeminiOptions(project="p", region="us-east1", api_version="v1")


@pytest.mark.parametrize(
    ("model", "options", "path"),
    [
        ("gemini-x", STUDIO, "/v1beta/models/gemini-x:generateContent"),
        ("models/gemini-x", STUDIO, "/v1beta/models/gemini-x:generateContent"),
        ("tunedModels/a", STUDIO, "/v1beta/tunedModels/a:generateContent"),
        ("a:b c?d#e", STUDIO, "/v1beta/models/a%3Ab%20c%3Fd%23e:generateContent"),
        (
            "gemini-x",
            VERTEX,
            "/v1/projects/p/locations/us-east1/publishers/google/models/gemini-x"
            ":generateContent",
        ),
        (
            "models/gemini-x",
            VERTEX,
            "/v1/projects/p/locations/us-east1/publishers/google/models/gemini-x"
            ":generateContent",
        ),
        (
            "publishers/meta/models/llama",
            VERTEX,
            "/v1/projects/p/locations/us-east1/publishers/meta/models/llama"
            ":generateContent",
        ),
        (
            "endpoints/123",
            VERTEX,
            "/v1/projects/p/locations/us-east1/endpoints/123:generateContent",
        ),
    ],
)
def test_path_of_a_model(model: str, options: GeminiOptions, path: str) -> None:
    assert paths.path(model, paths.GENERATE, options) == path


def test_s9_streams_ask_for_events() -> None:
    assert paths.path("m", paths.STREAM, STUDIO).endswith(
        ":streamGenerateContent?alt=sse"
    )


@pytest.mark.parametrize(
    "model", ["", "a/b", "../x", "models/..", "models/../x", "models//x", "models/"]
)
@pytest.mark.parametrize("options", [STUDIO, VERTEX], ids=["studio", "vertex"])
def test_name_that_leads_elsewhere_is_no_model(
    model: str, options: GeminiOptions
) -> None:
    with pytest.raises(ModelNotFoundError):
        paths.path(model, paths.GENERATE, options)
