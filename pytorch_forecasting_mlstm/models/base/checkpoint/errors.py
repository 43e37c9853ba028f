"""The error for checkpoints that are rejected."""

from ..errors import UnprefixedError

__all__ = ["CheckpointError"]


class CheckpointError(UnprefixedError):
    """A checkpoint is rejected."""
