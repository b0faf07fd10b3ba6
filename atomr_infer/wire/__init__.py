"""Bytes of the dialects to values and back; pure."""
