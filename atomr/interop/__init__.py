"""Interop: threads, asyncio and context managers as supervised processes."""
