"""The runtime plugin for vLLM."""
