"""Fake upstreams: what they understand, what they answer, in four dialects.

``dialect`` is the seam: a dialect reads a request (``Call``) or refuses it as
its provider would, and writes an answer.  ``plan`` turns a behaviour into the
steps that a connection takes, and ``server`` takes them.  The door for users is
``atomr_infer.testing.upstream``.
"""
