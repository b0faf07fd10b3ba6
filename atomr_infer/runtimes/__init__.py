"""The plugin contract: what a runtime is, how it is found, how it is checked."""
