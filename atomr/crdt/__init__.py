"""Replicated data that converges without a leader: values, deltas and their log.

Pure: no trio, no clock, no randomness; time and origins are arguments.
"""
