"""Sizes that follow from the dataset. This is the one place where they are chosen."""

__all__ = ["default_moving_averages", "default_patch_length"]

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


def default_moving_averages(max_encoder_length: int) -> tuple[int, int]:
    """Return over how many steps the trend is averaged, and over how many trend and cycle.

    A third of the history, and a seventh of that: odd numbers, so that averages lie in the middle.

    >>> [default_moving_averages(steps) for steps in (1, 24, 96, 168, 336, 512)]
    [(5, 3), (9, 3), (33, 5), (57, 9), (113, 17), (171, 25)]
    """
    trend = max(max_encoder_length // 3, 5) | 1
    return trend, max(trend // 7, 3) | 1
