"""A cheap model first, and its answers judged: the runtime ``cascade``."""
