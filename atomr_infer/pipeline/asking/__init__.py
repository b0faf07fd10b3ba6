"""What all pipelines have in common: runner, plugin, and what their options are."""
