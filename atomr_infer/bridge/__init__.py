"""Child-process host for local engines: frames, parent side, child side."""
