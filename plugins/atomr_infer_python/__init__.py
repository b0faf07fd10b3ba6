"""A runtime that runs a function or class of your own."""

from __future__ import annotations

from atomr_infer.actors.request import Request

__all__ = ["Request"]
