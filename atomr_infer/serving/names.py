"""Registered names of the serving tree's processes."""

from __future__ import annotations

MANAGER = "deployment_manager"
DEPLOYMENTS = "deployments"
REQUESTS = "requests"
GATEWAYS = "gateways"
HOT_SWAPS = "hot_swaps"


def next_name(deployment: str) -> str:
    """The name of the deployment that is to take over from one, until it has."""
    return f"{deployment}:next"


def coordinator_name(deployment: str) -> str:
    """The name of a deployment's coordinator."""
    return f"coordinator:{deployment}"


def replica_name(deployment: str, number: int) -> str:
    """The name of one replica's supervisor."""
    return f"replica:{deployment}:{number}"


def engine_core_name(deployment: str, number: int) -> str:
    """The name of one replica's engine core."""
    return f"engine_core:{deployment}:{number}"
