"""Requests of a program of your own: flows, files, and turns of its tenants."""
