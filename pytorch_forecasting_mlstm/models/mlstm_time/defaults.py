"""Checks of the arguments of mLSTMTime, and the defaults that follow from the history's length."""

from typing import Any

from ..._validation import check_bool, check_int
from ..base.checkpoint.limits import SizedHparams

__all__ = [
    "SIZED_HPARAMS",
    "check_sizes",
    "default_moving_averages",
    "default_patch_length",
    "default_random_sign_flip",
    "resolve_amplitudes",
    "resolve_memory_length",
    "resolve_moving_averages",
    "resolve_patch_length",
]

#: A checkpoint must contain enough weights for these hyper-parameters.
SIZED_HPARAMS = SizedHparams(
    sizes=(
        "hidden_size",
        "max_encoder_length",
        "max_prediction_length",
        "memory_length",
        "moving_averages",
        "num_heads",
        "num_layers",
        "output_size",
        "patch_length",
    ),
    layers={"num_layers": r"network\.memory\.cells\.\d+\."},
    reals=("static_reals", "time_varying_reals_encoder", "time_varying_reals_decoder"),
    categoricals=(
        "static_categoricals",
        "time_varying_categoricals_encoder",
        "time_varying_categoricals_decoder",
    ),
)

_CALLER = "mLSTMTime"
_MAX_PATCH = 16
_MIN_TOKENS = 32
_LONG_HISTORY = 64


def default_patch_length(memory_length: int) -> int:
    """Return the number of steps in a patch.

    It is the largest power of two up to 16 that leaves 32 tokens of history.

    >>> [default_patch_length(steps) for steps in (24, 96, 168, 336, 512, 2048)]
    [1, 2, 4, 8, 16, 16]
    """
    patch = 1
    while patch < _MAX_PATCH and memory_length // (2 * patch) >= _MIN_TOKENS:
        patch *= 2
    return patch


def default_moving_averages(max_encoder_length: int) -> tuple[int, int]:
    """Return the numbers of steps averaged for the trend, and for trend plus cycle.

    They are a third of the history, and a seventh of that, both odd so that averages are centered.

    >>> [default_moving_averages(steps) for steps in (1, 24, 96, 168, 336, 512)]
    [(5, 3), (9, 3), (33, 5), (57, 9), (113, 17), (171, 25)]
    """
    trend = max(max_encoder_length // 3, 5) | 1
    return trend, max(trend // 7, 3) | 1


def default_random_sign_flip(memory_length: int) -> bool:
    """Return whether to flip signs in training, where that is possible.

    It is for histories of 64 steps or more: training data contain few long windows that do not
    overlap, and the model would memorize their drift. They contain many short windows, whose
    direction is worth learning.

    >>> [default_random_sign_flip(steps) for steps in (24, 63, 64, 512)]
    [False, False, True, True]
    """
    return memory_length >= _LONG_HISTORY


def check_sizes(**sizes: Any) -> None:
    """Raise unless all sizes, by the name of the argument, are positive integers."""
    for name, size in sizes.items():
        check_int(_CALLER, name, size)


def resolve_memory_length(memory_length: Any, max_encoder_length: int) -> int:
    """Return the checked argument, or its default: the whole history."""
    if memory_length is None:
        return max_encoder_length
    check_int(_CALLER, "memory_length", memory_length)
    if memory_length > max_encoder_length:
        raise ValueError(
            f"{_CALLER}: memory_length must be at most max_encoder_length, which is "
            f"{max_encoder_length}, got {memory_length}; lower it, or lengthen the history."
        )
    return memory_length


def resolve_patch_length(patch_length: Any, memory_length: int) -> int:
    """Return the checked argument, or its default."""
    if patch_length is None:
        return default_patch_length(memory_length)
    check_int(_CALLER, "patch_length", patch_length)
    return patch_length


def resolve_moving_averages(moving_averages: Any, max_encoder_length: int) -> tuple[int, int]:
    """Return the checked argument, or its default. It may be a list: YAML has no tuples."""
    if moving_averages is None:
        return default_moving_averages(max_encoder_length)
    is_sequence = isinstance(moving_averages, (tuple, list))
    if not is_sequence or len(moving_averages) != 2:
        raise (ValueError if is_sequence else TypeError)(
            f"{_CALLER}: moving_averages must be two numbers of steps, such as (171, 25), got "
            f"{moving_averages!r}."
        )
    trend, smooth = moving_averages
    check_int(_CALLER, "moving_averages[0]", trend)
    check_int(_CALLER, "moving_averages[1]", smooth)
    if trend < smooth:
        raise ValueError(
            f"{_CALLER}: moving_averages must not increase: the trend is averaged over at least as "
            f"many steps as trend plus cycle, got {moving_averages!r}; swap them."
        )
    return trend, smooth


def resolve_amplitudes(amplitudes: Any, covariates: list[str]) -> bool:
    """Return the checked argument, or its default: True without covariates."""
    if amplitudes is None:
        return not covariates
    check_bool(_CALLER, "amplitudes", amplitudes)
    return amplitudes
