"""The second terminal: python examples/cluster_two_terminals/b.py."""

from two_terminals import main  # type: ignore[import-not-found]

main("b")
