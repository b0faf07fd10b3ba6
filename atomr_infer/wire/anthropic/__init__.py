"""Anthropic's Messages API, as a client and as a provider speaks it."""
