"""Runtime plugin for OpenAI and OpenAI-compatible servers."""
