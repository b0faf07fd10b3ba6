"""Answers that are given again: the runtime ``cache``."""
