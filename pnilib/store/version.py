"""Which pnilib this is, told without torch."""

import importlib.metadata

__all__ = ["__version__", "pnilib_version"]


def pnilib_version() -> str:
    """Version of the installed package; "unknown" in a checkout that is not installed."""
    try:
        return importlib.metadata.version("pnilib")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


__version__ = pnilib_version()
