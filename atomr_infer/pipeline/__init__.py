"""Deployments that are made of others, each a runtime of its own.

A pipeline's runner asks other deployments by their public names, through
:mod:`atomr_infer.runtimes.others`: so routing, limits, budgets, retries, costs and
cancellation hold for each of its stages by themselves.

``plugins`` are the runtimes; ``options`` reads what a deployment says, ``judging`` and
``json_schema`` decide (all three pure); ``cascade`` moves the chunks.
"""
