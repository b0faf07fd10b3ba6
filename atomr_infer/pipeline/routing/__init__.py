"""Specialists, and who is asked: the runtime ``router``."""
