"""The litellm runtime: a LiteLLM proxy as an upstream."""
