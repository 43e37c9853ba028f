"""`EncoderNormalizer` for a whole batch: every sample is scaled by what its encoder holds.

The formulas are the host's (``TorchNormalizer._set_parameters``), along the last dimension. To
round as torch does for a single sample, they mind how it works:

1. Mean: numbers that are contiguous in memory are added in another order than numbers that are
   not, and the order depends on how many there are. Encoders of equal length are taken together.
2. Standard deviation: of a single vector, torch adds the squared distances from the mean in
   float64, from first to last; of the rows of a matrix it does not. Encoders of any lengths are
   taken together, as they are for quantiles.
3. Transformations: torch may handle eight or sixteen numbers at once and what remains one by one,
   and the two can differ in the last bit. Rows that do not touch in memory each get a remainder of
   their own. The transformations that the host knows by name are free of this.
"""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from .windows import BoolArray, IntArray, all_equal

# torch.quantile refuses inputs of more elements than this.
_MOST_FOR_QUANTILE = 2**24
# From so many elements on, torch shares them out among threads, wherever a row may end.
_SERIAL = 2**15


def encoder_scales(
    normalizer: Any, values: Tensor, lengths: IntArray, strided: BoolArray | None = None
) -> Tensor:
    """Fit a normalizer to each encoder of a batch.

    On the CPU the result is the host's to the last bit. On other devices, where many small steps
    would be slow and rounding differs anyway, sums are taken over all encoders at once; and nothing
    is asked of the results, since the processor would have to wait for an answer.

    Parameters
    ----------
    normalizer : EncoderNormalizer
        only its settings are read
    values : Tensor
        samples, shape ``(B, T)``: the encoder, then at least one step more
    lengths : ndarray of int
        length of each encoder, shape ``(B,)``
    strided : ndarray of bool, optional
        samples that the host reads from memory that is not contiguous, shape ``(B,)``

    Returns
    -------
    Tensor
        center and scale, shape ``(B, 2)``
    """
    exact = _rounds_as_the_host(values)
    own_transformation = isinstance(normalizer.transformation, dict)
    if all_equal(lengths) or not lengths.all() or (exact and own_transformation):
        scales = _by_length(partial(_fit, normalizer), lengths, strided, values)
    else:
        scales = _masked_scales(normalizer, values, lengths, strided)
    if exact and bool((scales[:, 1] < 1e-7).any()):
        warnings.warn(
            "scale is below 1e-7 - consider not centering the data or using data with higher "
            "variance for numerical stability",
            UserWarning,
            stacklevel=2,
        )
    return scales


def leave_fitted(normalizer: Any, scales: Tensor) -> None:
    """Leave a normalizer fitted to the last sample, as the host does (on the CPU).

    Parameters
    ----------
    normalizer : EncoderNormalizer
        changed
    scales : Tensor
        center and scale of each sample, shape ``(B, 2)``
    """
    if _rounds_as_the_host(scales):
        normalizer.center_, normalizer.scale_ = scales[-1].clone().unbind()


def scaled(
    normalizer: Any,
    values: Tensor,
    scales: Tensor,
    lengths: IntArray,
    strided: BoolArray | None = None,
) -> Tensor:
    """Transform and scale each sample of a batch.

    Parameters
    ----------
    normalizer : EncoderNormalizer
        only its settings are read
    values : Tensor
        samples, shape ``(B, T)``
    scales : Tensor
        center and scale of each, shape ``(B, 2)``
    lengths : ndarray of int
        number of steps of each sample, shape ``(B,)``; what comes after is of no meaning
    strided : ndarray of bool, optional
        samples that the host reads from memory that is not contiguous, shape ``(B,)``

    Returns
    -------
    Tensor
        shape ``(B, T)``
    """
    if not isinstance(normalizer.transformation, dict) or not _rounds_as_the_host(values):
        return normalizer.transform(values, target_scale=scales)

    return _by_length(
        lambda rows, of: normalizer.transform(rows, target_scale=of),
        lengths,
        strided,
        values,
        scales,
    )


def _rounds_as_the_host(values: Tensor) -> bool:
    """Tell whether it is worth minding the last bit: the host works on the CPU."""
    return values.device.type == "cpu"


def _by_length(
    work: Callable[..., Tensor],
    lengths: IntArray,
    strided: BoolArray | None,
    values: Tensor,
    *others: Tensor,
) -> Tensor:
    """Work on samples of equal length together, and put the results where the samples were.

    Parameters
    ----------
    work : callable
        makes a result of shape ``(b, length)`` or ``(b, some number)`` of some of the rows of
        ``values``, shape ``(b, length)``, and the same rows of each of the others
    lengths : ndarray of int
        shape ``(B,)``
    strided : ndarray of bool, optional
        shape ``(B,)``
    values : Tensor
        shape ``(B, T)``
    *others : Tensor
        whatever else belongs to the samples, shape ``(B, ...)``

    Returns
    -------
    Tensor
        shape ``(B, T)`` or ``(B, some number)``
    """

    def of_kind(kind: int, values: Tensor, *others: Tensor) -> Tensor:
        rows = _rows_apart(values, kind)
        if rows.numel() < _SERIAL:
            return work(rows, *others)
        few = max(1, (_SERIAL - 1) // rows.shape[1])
        parts = zip(*(each.split(few) for each in (rows, *others)), strict=True)
        return torch.cat([work(*part) for part in parts])

    kinds = 2 * lengths if strided is None else 2 * lengths + strided
    if all_equal(kinds):
        return of_kind(int(kinds[0]), values, *others)
    order = np.argsort(kinds, kind="stable")
    kinds = kinds[order]
    ends = [*(np.flatnonzero(np.diff(kinds)) + 1).tolist(), len(kinds)]
    together = [each[torch.from_numpy(order)] for each in (values, *others)]
    results = [
        of_kind(int(kinds[begin]), *(each[begin:end] for each in together))
        for begin, end in zip([0, *ends], ends, strict=False)
    ]
    width = max(result.shape[1] for result in results)
    padded = [
        each if each.shape[1] == width else F.pad(each, (0, width - each.shape[1]))
        for each in results
    ]
    return torch.cat(padded)[torch.from_numpy(np.argsort(order))]


def _rows_apart(values: Tensor, kind: int) -> Tensor:
    """Lay out the first steps of samples so that torch takes them row by row."""
    length, strided = divmod(kind, 2)
    rows = values[:, :length]
    if strided:  # every second number of a buffer
        return rows.new_empty(*rows.shape, 2)[..., 0].copy_(rows)
    if length == values.shape[1]:  # they would touch
        return rows.new_empty(len(rows), length + 1)[:, :length].copy_(rows)
    return rows


def _fit(normalizer: Any, encoders: Tensor) -> Tensor:
    """Find center and scale of encoders of equal length."""
    for_center, for_scale = _last_steps(normalizer, encoders)
    eps = torch.finfo(for_center.dtype).eps  # raises for integers, as the host does
    if normalizer.method == "identity":
        return _identity(encoders)
    if normalizer.method == "standard":
        center = for_center.mean(-1)
        mean = center if for_center is for_scale else for_scale.mean(-1)
        scale = _deviation(for_scale, mean) + eps
    else:
        lower, center, upper = _quantiles(for_scale, _levels(normalizer))
        if for_center is not for_scale:
            center = _quantiles(for_center, _levels(normalizer))[1]
        scale = (upper - lower) / 2.0 + eps
    if not normalizer.center:
        center = torch.zeros_like(center)
    return torch.stack([center, scale], dim=-1)


def _deviation(encoders: Tensor, mean: Tensor) -> Tensor:
    """Take the standard deviation of each encoder from its mean."""
    count = encoders.shape[1]
    if count < 2 or not _rounds_as_the_host(encoders):
        return encoders.std(-1)  # of fewer than two, NaN and a warning
    squares = encoders.to(torch.float64, copy=True)  # worked on in place
    squares.sub_(mean.unsqueeze(-1)).mul_(squares)
    variance = squares.cumsum_(-1)[:, -1] / (count - 1)  # a cumulative sum adds one by one
    return variance.sqrt_().to(encoders.dtype)


def _last_steps(normalizer: Any, encoders: Tensor) -> tuple[Tensor, Tensor]:
    """Pick what decides on the center, and what on the scale, and transform it."""
    longest = normalizer.max_length
    if longest is None:
        transformed = normalizer.preprocess(encoders)
        return transformed, transformed
    if isinstance(longest, int):
        transformed = normalizer.preprocess(encoders[:, -longest:])
        return transformed, transformed
    transformed = normalizer.preprocess(encoders[:, -max(longest) :])
    if int(np.argmax(longest)) == 0:
        return transformed, transformed[:, -longest[1] :]
    return transformed[:, -longest[0] :], transformed


def _levels(normalizer: Any) -> list[float]:
    chosen = normalizer._method_kwargs
    return [chosen.get("lower", 0.25), chosen.get("center", 0.5), chosen.get("upper", 0.75)]


def _quantiles(
    values: Tensor, levels: list[float], of: Callable[..., Tensor] = torch.quantile
) -> Tensor:
    """Take quantiles of each encoder, all from one sort: shape ``(levels, B)``."""
    at = values.new_tensor(levels)
    parts = values.split(max(1, _MOST_FOR_QUANTILE // max(1, values.shape[-1])))
    return torch.cat([of(part, at, dim=-1) for part in parts], dim=1)


def _masked_scales(
    normalizer: Any, values: Tensor, lengths: IntArray, strided: BoolArray | None = None
) -> Tensor:
    """Find center and scale of encoders of different lengths, all at once."""
    values = values[:, : int(lengths.max())]
    transformed = normalizer.preprocess(values)
    if transformed is not values:  # what a transformation gives is contiguous
        strided = None
    eps = torch.finfo(transformed.dtype).eps  # raises for integers, as the host does
    if normalizer.method == "identity":
        return _identity(values)
    step = torch.arange(values.shape[1], device=values.device)
    ends = torch.from_numpy(lengths).to(values.device).unsqueeze(1)

    def counted(most: int | None) -> Tensor:
        within = step < ends
        # As with a slice [-0:], a limit of 0 is none.
        return within & (step >= ends - most) if most else within

    def mean(most: int | None, within: Tensor) -> Tensor:
        if not _rounds_as_the_host(values):
            return transformed.masked_fill(~within, 0).sum(1) / within.sum(1)
        last = slice(-(most or 0), None)
        rows = _by_length(
            lambda rows: rows[:, last].mean(1, keepdim=True), lengths, strided, transformed
        )
        return rows[:, 0]

    longest = normalizer.max_length
    most_for_center, most_for_scale = (
        (longest, longest) if longest is None or isinstance(longest, int) else longest
    )
    same = most_for_center == most_for_scale
    for_scale = counted(most_for_scale)
    for_center = for_scale if same else counted(most_for_center)
    if normalizer.method == "standard":
        center = mean(most_for_center, for_center)
        of_scale = center if same else mean(most_for_scale, for_scale)
        scale = _masked_deviation(transformed, of_scale, for_scale)
    else:
        lower, center, upper = _masked_quantiles(normalizer, transformed, for_scale)
        if not same:
            center = _masked_quantiles(normalizer, transformed, for_center)[1]
        scale = (upper - lower) / 2.0
    if not normalizer.center:
        center = torch.zeros_like(center)
    return torch.stack([center, scale + eps], dim=-1)


def _masked_deviation(values: Tensor, mean: Tensor, counted: Tensor) -> Tensor:
    """Take the standard deviation of some of the numbers of each row from their mean."""
    exact = _rounds_as_the_host(values)
    distances = values.to(torch.float64 if exact else values.dtype) - mean.unsqueeze(1)
    squares = distances.square_().masked_fill_(~counted, 0)
    # As in `_deviation`; to add 0 rounds nothing.
    total = squares.cumsum_(1)[:, -1] if exact else squares.sum(1)
    return (total / (counted.sum(1) - 1)).sqrt_().to(values.dtype)


def _masked_quantiles(normalizer: Any, values: Tensor, counted: Tensor) -> Tensor:
    """Take quantiles of some of the numbers of each row; where one of them is NaN, all are."""
    undefined = (values.isnan() & counted).any(1)
    chosen = values.masked_fill(~counted, torch.nan)
    found = _quantiles(chosen, _levels(normalizer), torch.nanquantile)
    return found.masked_fill(undefined, torch.nan)


def _identity(values: Tensor) -> Tensor:
    return torch.tensor([0.0, 1.0], device=values.device).repeat(len(values), 1)
