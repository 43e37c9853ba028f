"""The typical scale of every training series, looked up for the samples of a batch."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

__all__ = ["ReferenceScales", "ScaleTable", "TypicalScales"]


class TypicalScales(NamedTuple):
    """The typical scale of every series of a dataset, in the space of its transformation.

    Attributes
    ----------
    groups : Tensor
        Codes of the groups of every series, int64, (S, G).
    scales : Tensor
        Scale of every target in every series, 0 where it is constant, (S, number of targets).
    """

    groups: Tensor
    scales: Tensor


class ReferenceScales(NamedTuple):
    """Scales of one target for samples whose history has no spread of its own.

    Attributes
    ----------
    series : Tensor
        Scale of the sample's series, 0 if the series is constant or unknown, (B, 1).
    known : Tensor
        Whether the series was trained on, bool, (B, 1).
    median, smallest : Tensor
        Over the series that are not constant, (); 1 if there are none.
    """

    series: Tensor
    known: Tensor
    median: Tensor
    smallest: Tensor

    def to(self, dtype: torch.dtype) -> "ReferenceScales":
        """Return the scales in another precision."""
        return self._replace(
            series=self.series.to(dtype),
            median=self.median.to(dtype),
            smallest=self.smallest.to(dtype),
        )


class ScaleTable(nn.Module):
    """Look up the scales of series by the codes of their groups.

    Parameters
    ----------
    series_scales : TypicalScales or None
        Scales of the training series. If None, every series is unknown.
    targets : int
        Number of targets.
    """

    keys: Tensor
    sizes: Tensor
    strides: Tensor
    scales: Tensor
    summary: Tensor

    def __init__(self, series_scales: TypicalScales | None, targets: int) -> None:
        super().__init__()
        if series_scales is None:  # one series, with a code that no sample has
            groups = torch.full((1, 1), -1, device="cpu")
            series_scales = TypicalScales(groups, torch.zeros(1, targets, device="cpu"))
        self.replace(series_scales)

    def replace(self, series_scales: TypicalScales) -> None:
        """Replace the scales by those of another dataset.

        Parameters
        ----------
        series_scales : TypicalScales
            New scales.
        """
        groups, scales = series_scales
        if hasattr(self, "scales"):  # on the device and in the precision of the model
            groups, scales = groups.to(self.keys.device), scales.to(self.scales)
        sizes = groups.amax(0) + 2  # the largest code of each group stands for unknown ones
        strides = sizes.cumprod(0) // sizes
        keys, order = (groups * strides).sum(1).sort()
        # hyper-parameters hold the scales, so that weights keep their names
        for name, values in {
            "keys": keys,
            "sizes": sizes,
            "strides": strides,
            "scales": scales[order],
            "summary": torch.stack([_median_and_smallest(column) for column in scales.unbind(1)]),
        }.items():
            self.register_buffer(name, values, persistent=False)

    @property
    def groups(self) -> int:
        """Number of the columns that identify a series."""
        return len(self.sizes)

    def forward(self, groups: Tensor) -> list[ReferenceScales]:
        """Look up the scales of samples, for each target.

        Parameters
        ----------
        groups : Tensor
            Codes of the groups of every sample, (B, G).
        """
        wanted = (torch.minimum(groups, self.sizes - 1) * self.strides).sum(1)
        if torch.compiler.is_compiling():  # a graph of ONNX has no binary search
            row = (self.keys == wanted[:, None]).long().argmax(1)
        else:
            row = torch.searchsorted(self.keys, wanted).clamp_max(len(self.keys) - 1)
        known = (self.keys[row] == wanted)[:, None]
        scales = torch.where(known, self.scales[row], 0)
        return [
            ReferenceScales(column[:, None], known, *summary.unbind())
            for column, summary in zip(scales.unbind(1), self.summary, strict=True)
        ]


def _median_and_smallest(scales: Tensor) -> Tensor:
    varying = scales[scales > 0]
    return torch.stack([varying.median(), varying.amin()]) if len(varying) else scales.new_ones(2)
