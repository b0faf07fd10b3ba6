"""Sockets, and which server has a connection: ours, or hypercorn."""
