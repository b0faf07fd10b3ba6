"""What holds for every test."""

from __future__ import annotations

import gc

from hypothesis import HealthCheck, settings

# How long an example takes says how busy the machine is, and nothing of the code.
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("busy")


def pytest_collection_finish() -> None:
    """Keep what pytest holds of thousands of tests out of each collection to come.

    Collections that are asked for cost a tenth with it.
    """
    gc.collect()
    gc.freeze()
