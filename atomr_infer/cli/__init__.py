"""The atomr-infer command."""
