"""Sizes that follow from the dataset. This is the one place where they are chosen."""

__all__ = ["default_patch_length"]

_MAX_PATCH = 16
_MIN_TOKENS = 32


def default_patch_length(max_encoder_length: int) -> int:
    """Return how many steps to fold into one token.

    The largest power of two up to 16 that leaves 32 tokens of history.

    >>> [default_patch_length(steps) for steps in (24, 96, 168, 336, 512, 2048)]
    [1, 2, 4, 8, 16, 16]
    """
    patch = 1
    while patch < _MAX_PATCH and max_encoder_length // (2 * patch) >= _MIN_TOKENS:
        patch *= 2
    return patch
