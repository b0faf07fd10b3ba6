"""Models of a hub: how they are named, which files are fetched, and what is whole.

``fetching`` is what a runtime asks.  ``names`` is all that a configuration needs, and
imports nothing of the others; ``http`` alone asks the network, and ``notes`` alone says
what of the cache may be believed.
"""
