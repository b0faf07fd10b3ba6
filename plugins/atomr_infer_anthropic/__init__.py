"""Runtime plugin for Anthropic and servers that speak its Messages API."""
