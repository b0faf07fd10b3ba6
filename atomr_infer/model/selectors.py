"""Members of a request by which a client would choose what a deployment chooses.

Servers in front of many models take more than ``model``: lists of other models,
presets, an endpoint, a key, a price.  A deployment says which model is asked, where
and with whose key, and its limits and its bill hold for that alone; so what would
say otherwise is refused wherever it would reach such a server.

Pure.

Source: OpenRouter documentation, "Model Fallbacks", "Provider Routing", "Presets",
"Plugins"; LiteLLM documentation, "Client-Side Fallbacks", "Clientside LLM
Credentials", "Tag Based Routing".
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from atomr_infer.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from atomr_infer.model.parts import RawJson

SELECTOR_NAMES = (
    # other models
    "models",
    "route",
    "provider",
    "preset",
    "plugins",
    "fallbacks",
    "default_fallbacks",
    "context_window_fallbacks",
    "content_policy_fallbacks",
    "model_list",
    "model_info",
    "user_config",
    "router_settings",
    "router_settings_override",
    "specific_deployment",
    "deployment_id",
    "custom_llm_provider",
    "litellm_params",
    "litellm_metadata",
    # another endpoint, or another key
    "api_base",
    "base_url",
    "api_key",
    "api_type",
    "api_version",
    "organization",
    "extra_headers",
    "extra_body",
    "headers",
    "region_name",
    "azure_ad_token",
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_session_name",
    "aws_profile_name",
    "aws_role_name",
    "aws_region_name",
    "aws_web_identity_token",
    "aws_sts_endpoint",
    "aws_bedrock_runtime_endpoint",
    "sagemaker_base_url",
    "vertex_project",
    "vertex_location",
    "vertex_credentials",
    "vertex_ai_project",
    "vertex_ai_location",
    "vertex_ai_credentials",
    # another price, or more requests than one
    "input_cost_per_token",
    "output_cost_per_token",
    "input_cost_per_second",
    "output_cost_per_second",
    "num_retries",
    "max_retries",
    "mock_response",
    "mock_testing_fallbacks",
)
"""What servers in front of many models read, as they write it."""

SELECTORS = frozenset(name.replace("_", "") for name in SELECTOR_NAMES)
"""The same in lower case without underscores, as they are compared."""

TAGS = frozenset({"tags", "metadata.tags"})
"""What a LiteLLM proxy chooses among its deployments by, beside those."""


def refuse_selectors(extra: Mapping[str, RawJson], selectors: Collection[str]) -> None:
    """Refuse a request that would choose its own model, endpoint, key or price.

    Args:
        extra: the members that the canonical form does not model, by name.
        selectors: the names that the upstream reads, in lower case without
            underscores; a dot stands before a member of ``metadata``.

    Raises:
        InvalidRequestError: ``param`` names the member.
    """
    for name, raw in extra.items():
        plain = _plain(name)
        if plain in selectors:
            raise _refused(name)
        for inner in _members(raw) if plain == "metadata" else ():
            if f"{plain}.{_plain(inner)}" in selectors:
                raise _refused(f"{name}.{inner}")


def _plain(name: str) -> str:
    # Google's dialect is read in two spellings, and some servers in any case.
    return name.replace("_", "").lower()


def _members(raw: RawJson) -> Collection[str]:
    try:
        return msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
    except msgspec.ValidationError:
        return ()  # no object: its upstream says what it thinks of it


def _refused(param: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{param} is not allowed: which model is asked, where and at what price is "
        "the deployment's to say; name another 'model', or leave it out",
        code="unsupported_parameter",
        param=param,
    )
