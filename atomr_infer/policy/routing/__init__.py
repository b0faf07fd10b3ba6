"""Which deployment and which replica takes a request; pure."""
