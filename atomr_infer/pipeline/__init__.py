"""Deployments that are made of others, each a runtime of its own.

A pipeline's runner asks other deployments by their public names, through
:mod:`atomr_infer.runtimes.others`: so routing, limits, budgets, retries, costs and
cancellation hold for each of its stages by themselves.

Each kind has a room, with its options (pure), its runner and its ``plugin``;
``asking`` is what they have in common.
"""
