"""The supervision tree that serves deployments."""
