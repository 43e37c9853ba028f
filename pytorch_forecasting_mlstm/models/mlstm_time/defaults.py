"""What follows from the length of the history. This is the one place where it is chosen."""

__all__ = ["default_moving_averages", "default_patch_length", "default_random_sign_flip"]

_MAX_PATCH = 16
_MIN_TOKENS = 32
_LONG_HISTORY = 64


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


def default_random_sign_flip(max_encoder_length: int) -> bool:
    """Return whether to train with random signs, where that can be done.

    From 64 steps on: training data hold few long windows that do not overlap, and which way those
    drift is learned by heart. Of short ones they hold many, and the direction is worth knowing.

    >>> [default_random_sign_flip(steps) for steps in (24, 63, 64, 512)]
    [False, False, True, True]
    """
    return max_encoder_length >= _LONG_HISTORY
