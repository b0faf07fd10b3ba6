"""atomr_infer: one deployment object for local engines and remote model APIs."""

from atomr_infer._version import VERSION

__version__ = VERSION

__all__ = ["__version__"]
