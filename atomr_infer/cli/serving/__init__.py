"""``atomr-infer serve``: one process or several workers, and what changes it."""
