"""What nodes of a cluster say to each other about requests, as bytes.

Pure.
"""
