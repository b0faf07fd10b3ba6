"""The HTTP surface: routes, errors, streams, listeners."""
