"""The runtime that embeds, as the facade's tests have it."""

from tests.facade.conftest import waiting

__all__ = ["waiting"]
