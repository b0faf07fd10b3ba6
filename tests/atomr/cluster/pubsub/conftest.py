"""The certificates' authority of the tests."""

from tests.atomr.cluster.replicator.conftest import authority

__all__ = ["authority"]
