"""atomr_infer: one deployment object for local engines and remote model APIs."""

from atomr_infer._version import VERSION as __version__

__all__ = ["__version__"]
