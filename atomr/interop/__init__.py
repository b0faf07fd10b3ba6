"""Code that is no process made into one: threads, asyncio, context managers."""
