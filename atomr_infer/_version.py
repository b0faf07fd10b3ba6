"""The version of the distribution, read by the build and by ``--version``."""

VERSION = "0.1.0"
