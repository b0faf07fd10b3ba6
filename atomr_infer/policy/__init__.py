"""Decisions about requests: routing, admission, retry; pure."""
