"""The first terminal: python examples/cluster_two_terminals/a.py."""

from two_terminals import main  # type: ignore[import-not-found]

main("a")
