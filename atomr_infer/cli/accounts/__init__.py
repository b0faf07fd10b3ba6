"""Virtual keys, and what was used and what it cost: ``keys``, ``cost-report``."""
