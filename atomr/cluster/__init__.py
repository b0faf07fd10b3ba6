"""Clusters: nodes that know of each other, and what they do together.

``docs/reference/cluster.md`` says how it is used, and
``docs/explanation/clusters.md`` what is promised under partition and what is not.
"""
