"""The nouns of inference: plain values, no I/O, no clock."""
