"""`EncoderNormalizer` for a whole batch: each sample is scaled by its own history.

The formulas are those of pytorch-forecasting (``TorchNormalizer._set_parameters``), along the last
dimension. Quantiles equal those of single samples to the last bit. Means and standard deviations
are equal up to rounding: torch sums a matrix in another order than a vector.
"""

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from .windows import IntArray, all_equal

# torch.quantile refuses inputs with more elements.
_MAX_QUANTILE_ELEMENTS = 2**24


def encoder_scales(
    normalizer: Any, values: Tensor, lengths: IntArray, *, may_be_missing: bool = False
) -> Tensor:
    """Fit a normalizer to each history of a batch.

    Parameters
    ----------
    normalizer : EncoderNormalizer
        Only its settings are read.
    values : Tensor
        Samples, shape ``(B, T)``: the history first, then steps that are not read.
    lengths : ndarray of int
        Length of each history, shape ``(B,)``.
    may_be_missing : bool
        Whether values may be missing (NaN): then they do not count.

    Returns
    -------
    Tensor
        Center and scale, shape ``(B, 2)``. With missing values they are NaN where none are left,
        and the scale is where one is left.
    """
    if normalizer.method == "robust" and not lengths.all():
        raise RuntimeError(
            "EncoderNormalizer(method='robust') expects at least one step of history, got a sample "
            "with none; set min_encoder_length=1 or more"
        )
    history = values[:, : int(lengths.max())]
    ends = None if all_equal(lengths) else torch.from_numpy(lengths).to(values.device)
    observed = ~history.isnan() if may_be_missing else None
    scales = _fit(normalizer, history, ends, observed)
    # Results on another device are not inspected: that would force a device sync.
    if scales.device.type == "cpu" and bool((scales[:, 1] < 1e-7).any()):
        warnings.warn(
            "scale is below 1e-7 - consider not centering the data or using data with higher "
            "variance for numerical stability",
            UserWarning,
            stacklevel=2,
        )
    return scales


def store_last_fit(normalizer: Any, scales: Tensor) -> None:
    """Fit a normalizer to the last sample, as pytorch-forecasting does (on the CPU).

    Parameters
    ----------
    normalizer : EncoderNormalizer
        Its ``center_`` and ``scale_`` are set.
    scales : Tensor
        Center and scale of each sample, shape ``(B, 2)``.
    """
    if scales.device.type == "cpu":
        normalizer.center_, normalizer.scale_ = scales[-1].clone().unbind()


def _fit(
    normalizer: Any, history: Tensor, lengths: Tensor | None, observed: Tensor | None
) -> Tensor:
    """Compute center and scale of each history.

    ``lengths`` is None if all fill their row, ``observed`` if no value is missing.
    """
    transformed = normalizer.preprocess(history)
    eps = torch.finfo(transformed.dtype).eps  # raises for integers, as pytorch-forecasting does
    if normalizer.method == "identity":
        return torch.tensor([0.0, 1.0], device=history.device).repeat(len(history), 1)
    limits = normalizer.max_length
    center_limit, scale_limit = (
        (limits, limits) if limits is None or isinstance(limits, int) else limits
    )
    scale_steps = _LastSteps(transformed, lengths, scale_limit, observed)
    center_steps = (
        scale_steps
        if center_limit == scale_limit
        else _LastSteps(transformed, lengths, center_limit, observed)
    )
    if normalizer.method == "standard":
        center = center_steps.mean()
        scale = scale_steps.std(center if center_steps is scale_steps else scale_steps.mean())
    else:
        settings = normalizer._method_kwargs
        levels = [settings.get(name, level) for name, level in _DEFAULT_QUANTILES.items()]
        lower, center, upper = scale_steps.quantiles(levels)
        if center_steps is not scale_steps:
            center = center_steps.quantiles(levels)[1]
        scale = (upper - lower) / 2.0
        if observed is not None:  # a single value has no spread, as its standard deviation says
            scale = scale.masked_fill(scale_steps.count() < 2, torch.nan)
    if not normalizer.center:
        center = torch.zeros_like(center)
    return torch.stack([center, scale + eps], dim=-1)


_DEFAULT_QUANTILES = {"lower": 0.25, "center": 0.5, "upper": 0.75}


class _LastSteps:
    """The last steps of each history, and their statistics.

    Parameters
    ----------
    history : Tensor
        Shape ``(B, T)``.
    lengths : Tensor or None
        Length of each history, shape ``(B,)``; None if all have T steps.
    limit : int or None
        How many of the last steps count. None and 0 are no limit, as in a slice ``[-limit:]``.
    observed : Tensor or None
        Steps whose value is not missing, shape ``(B, T)``; None if all are.
    """

    def __init__(
        self,
        history: Tensor,
        lengths: Tensor | None,
        limit: int | None,
        observed: Tensor | None = None,
    ):
        self._counted = None
        self._values = history
        if lengths is None:
            self._values = history[:, -(limit or 0) :]
            self._counted = None if observed is None else observed[:, -(limit or 0) :]
            return
        ends = lengths.unsqueeze(1)
        step = torch.arange(history.shape[1], device=history.device)
        self._counted = step < ends
        if limit:
            self._counted &= step >= ends - limit
        if observed is not None:
            self._counted = self._counted & observed

    def count(self) -> Tensor | int:
        """Return how many steps of each history count, shape ``(B,)``."""
        return self._values.shape[1] if self._counted is None else self._counted.sum(1)

    def mean(self) -> Tensor:
        """Return the mean of each history, shape ``(B,)``."""
        if self._counted is None:
            return self._values.mean(1)
        return self._values.masked_fill(~self._counted, 0).sum(1) / self._counted.sum(1)

    def std(self, mean: Tensor) -> Tensor:
        """Return the standard deviation of each history from its mean, shape ``(B,)``.

        It is NaN if fewer than two steps count. Summing squares takes a quarter of the time of
        ``torch.std``.
        """
        squares = (self._values - mean.unsqueeze(1)).square_()
        if self._counted is None:
            return (squares.sum(1) / max(squares.shape[1] - 1, 0)).sqrt_()
        squares.masked_fill_(~self._counted, 0)
        return (squares.sum(1) / (self._counted.sum(1) - 1).clamp(min=0)).sqrt_()

    def quantiles(self, levels: list[float]) -> Tensor:
        """Return quantiles of each history, all from one sort: shape ``(len(levels), B)``."""
        if self._counted is None:
            return _quantiles(torch.quantile, self._values, levels)
        # nanquantile ignores steps that do not count; a NaN that counts makes the result NaN.
        undefined = (self._values.isnan() & self._counted).any(1)
        counted = self._values.masked_fill(~self._counted, torch.nan)
        return _quantiles(torch.nanquantile, counted, levels).masked_fill(undefined, torch.nan)


def _quantiles(quantile: Callable[..., Tensor], values: Tensor, levels: list[float]) -> Tensor:
    parts = values.split(max(1, _MAX_QUANTILE_ELEMENTS // max(1, values.shape[1])))
    at = values.new_tensor(levels)
    return torch.cat([quantile(part, at, dim=-1) for part in parts], dim=1)
