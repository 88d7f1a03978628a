"""The one exception that pnilib raises for a user's mistake.

Its text is one line: the file or setting, what is wrong, what to do.  The command
line prints that line and exits with status 2; a notebook shows it as the last line.
"""

__all__ = ["PNIError"]


class PNIError(ValueError):
    """Bad input: one line that names the culprit, the fault and the remedy."""
