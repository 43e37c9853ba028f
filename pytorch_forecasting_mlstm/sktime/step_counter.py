"""Steps between the times of sktime's data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from ..forecaster import InputError
from ..forecaster.reading import ReadTable
from ..forecaster.times.time_axis import TimeAxis
from ..forecaster.times.time_zones import read_zone


@dataclass(frozen=True)
class StepCounter:
    """Count steps as the forecaster of tables does: holidays that it leaves out are none.

    Attributes
    ----------
    axis : TimeAxis
        The times of the fitted table.
    zone : str or None
        The zone by whose clock they are spaced; None for UTC, and for times without a zone.

    Examples
    --------
    >>> axis = TimeAxis(pd.Timestamp("2024-11-28"), pd.offsets.BusinessDay(), ("2024-12-03",))
    >>> counter = StepCounter(axis)
    >>> counter.between(pd.Timestamp("2024-12-02"), pd.Timestamp("2024-12-04"))
    1
    >>> counter.between(pd.Period("2024-11", "M"), pd.Period("2025-02", "M"))
    3
    """

    axis: TimeAxis
    zone: str | None = None

    @classmethod
    def of(cls, read: ReadTable) -> StepCounter:
        """Count the steps of a table."""
        form = read.records.time_format
        return cls(read.axis, form.clock if form.local else None)

    def between(self, begin: Any, end: Any) -> int:
        """Count the steps between two times.

        Raises
        ------
        InputError
            If a timestamp lies between two steps.
        """
        if isinstance(begin, pd.Period):
            return (end.ordinal - begin.ordinal) // begin.freq.n
        if not isinstance(begin, pd.Timestamp):
            return int(end - begin)
        return self._position(end) - self._position(begin)

    def steps_to(self, fh: Any, end: Any) -> np.ndarray:
        """Count the steps from the end of a series to the times of a horizon."""
        wanted = fh.to_pandas()
        if fh.is_relative and wanted.dtype.kind in "iu":
            return wanted.to_numpy()
        times = end + wanted if fh.is_relative else wanted
        return np.array([self.between(end, time) for time in times])

    def _position(self, time: pd.Timestamp) -> int:
        inside = time
        if time.tz is not None:
            inside = time.tz_convert(read_zone(self.zone or "UTC")).tz_localize(None)
        try:
            return int(self.axis.place(pd.Series([inside]))[0])
        except InputError as error:
            raise InputError(
                f"MLSTMForecaster: {time} does not lie whole steps of y ({self.axis.name}, from "
                f"{self.axis.start}) from its other times: correct fh, or the index of y"
            ) from error
