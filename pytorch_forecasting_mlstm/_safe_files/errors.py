"""The error for files that are rejected."""

from .._messages import UnprefixedError

__all__ = ["RejectedFileError"]


class RejectedFileError(UnprefixedError):
    """A file is rejected."""
