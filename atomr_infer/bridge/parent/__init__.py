"""The parent's end: a runner that others use, and the watch over its child."""
