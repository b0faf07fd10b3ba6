"""Google's dialect: generateContent, streamed and not, and its neighbours.

Towards clients it is read and written by :mod:`.ingress`; towards the provider
by the modules whose names begin with ``upstream``.

Pure.
"""
