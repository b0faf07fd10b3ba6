"""The runtime plugin for llama.cpp."""
