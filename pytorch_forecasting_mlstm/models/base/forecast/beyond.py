"""Forecast beyond the horizon of training: sample paths are fed back as history, in blocks."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
from pytorch_forecasting.metrics import CrossEntropy, QuantileLoss
from torch import Tensor

from ....data.rows import Column, Labels, Rows, to_array
from ..losses.link import primary_metrics, target_normalizers
from ..seeded_draws import fixed_seed
from .columns import column_names, read_columns
from .rows import History, trim_history
from .sampling import can_sample, draw, draw_levels
from .schema import Schema, Table

__all__ = ["Blocks", "forecast_beyond"]

#: Windows that are forecast before the next series are begun, which limits the memory.
_MAX_WINDOWS = 2048
#: Pairs of neighboring errors from which their correlation is estimated.
_ERROR_PAIRS = 64
#: Their correlation if no series has earlier rows, and its largest value.
_DEFAULT_CORRELATION, _MAX_CORRELATION = 0.5, 0.99

Columns = list[dict[str, np.ndarray]]


class Blocks(NamedTuple):
    """How to forecast block by block.

    Attributes
    ----------
    model : ForecastingModel
        The model.
    schema : Schema
        Roles of the columns.
    levels : list of list of float
        Quantiles of each target.
    num_paths : int
        Number of sample paths of each series.
    seed : int
        Seed of the paths.
    batch_size : int
        Number of windows at a time.
    predict : callable
        Maps rows with history and horizon of series, and the number of their copies, to the output
        of the network for each target, (series, steps, output_size).
    """

    model: Any
    schema: Schema
    levels: list[list[float]]
    num_paths: int
    seed: int
    batch_size: int
    predict: Callable[[Rows, int], list[Tensor]]


def forecast_beyond(
    blocks: Blocks, history: History, future: Rows, outputs: list[Tensor]
) -> Columns:
    """Forecast all blocks but the first.

    Each path goes on from values that are drawn from the forecast of the block before. Its rows are
    encoded anew, with their lags and scales.

    Parameters
    ----------
    blocks : Blocks
        How to forecast.
    history : History
        What the forecasts start from.
    future : Rows
        Rows of the whole horizon.
    outputs : list of Tensor
        Output of the network for the first block.

    Returns
    -------
    list of dict
        Columns (series, steps) of each target, after the first block.
    """
    metrics = primary_metrics(blocks.model.loss)
    paths = blocks.num_paths if any(map(can_sample, metrics)) else 1
    correlations = _error_correlations(blocks, history) if paths > 1 else None
    count = len(history.names)
    size = max(1, _MAX_WINDOWS // paths)
    parts = []
    for start in range(0, count, size):
        chosen = np.arange(start, min(start + size, count))
        generator = torch.Generator().manual_seed(blocks.seed)
        part = _Paths(blocks, history, future, chosen, paths, generator)
        if correlations is not None:
            part.correlations = [values[chosen] for values in correlations]
        parts.append(list(part.run([output[chosen] for output in outputs])))
    return [
        {
            name: np.concatenate(
                [np.concatenate([b[target][name] for b in part], axis=1) for part in parts]
            )
            for name in parts[0][0][target]
        }
        for target in range(len(metrics))
    ]


class _Paths:
    """Sample paths of some series."""

    def __init__(
        self,
        blocks: Blocks,
        history: History,
        future: Rows,
        chosen: np.ndarray,
        paths: int,
        generator: torch.Generator,
    ) -> None:
        self.blocks, self.paths, self.generator = blocks, paths, generator
        self.count = len(chosen)
        self.metrics = primary_metrics(blocks.model.loss)
        self.normalizers = target_normalizers(blocks.model.output_transformer)
        self.correlations = [torch.zeros(self.count)] * len(self.metrics)
        self.names = [history.names[number] for number in chosen] * paths
        self.rows = _copy(_select_series(history.rows, chosen), self.count, paths)
        self.future = _select_series(future, chosen)

    def run(self, outputs: list[Tensor]) -> Iterator[Columns]:
        """Forecast block after block, from the output of the first one."""
        size = self.blocks.schema.horizon
        step = np.arange(len(self.future)) % (len(self.future) // self.count)
        blocks = [self.future[step // size == n] for n in range((int(step.max()) + 1) // size)]
        values = self.draw([output.repeat(self.paths, 1, 1) for output in outputs], 0)
        for number, (before, rows) in enumerate(pairwise(blocks), 1):
            self.feed_back(_copy(before, self.count, self.paths), values)
            extended = self.rows.extend(_copy(rows, self.count, self.paths))
            outputs = self.blocks.predict(extended, self.paths)
            values = self.draw(outputs, number)
            yield self.read(outputs, values)

    def draw(self, outputs: list[Tensor], block: int) -> list[Tensor]:
        """Draw a value of each target for each step, (paths, series, steps)."""
        values, device = [], self.blocks.model.device
        with fixed_seed(self.metrics, self.blocks.seed + block):
            for metric, output, normalizer, correlation in zip(
                self.metrics, outputs, self.normalizers, self.correlations, strict=True
            ):
                levels = draw_levels(correlation, self.paths, output.shape[1], self.generator)
                drawn = draw(metric, output.to(device), levels, normalizer, self.generator).cpu()
                if not drawn.isfinite().all():
                    raise ValueError(
                        f"{self.blocks.schema.caller}: values that are fed back must be finite, "
                        f"got others from {metric!r} in steps {block * levels.shape[2] + 1} to "
                        f"{(block + 1) * levels.shape[2]}; forecast fewer steps, or train with a "
                        f"smaller learning_rate."
                    )
                values.append(drawn)
        return values

    def feed_back(self, rows: Rows, values: list[Tensor]) -> None:
        """Add the rows of a block, with the values that were drawn, to the history."""
        schema, columns = self.blocks.schema, {}
        for name, normalizer, target in zip(schema.targets, self.normalizers, values, strict=True):
            flat = target.flatten().numpy()
            column: Column = _into_support(
                flat.astype(float), rows.series, self.rows, name, normalizer
            )
            if isinstance(rows.columns[name], Labels):
                column = Labels(flat.astype(np.int64), np.asarray(normalizer.classes_vector_))
            columns[name] = column
        extended = self.rows.extend(rows.assign(**columns))
        table = Table(extended, self.names, np.arange(len(extended)))
        self.rows = trim_history(schema, table).rows

    def read(self, outputs: list[Tensor], values: list[Tensor]) -> Columns:
        """Return point forecasts and quantiles over all paths, (series, steps)."""
        blocks = self.blocks
        points = read_columns(blocks.model, outputs, [[] for _ in outputs], blocks.batch_size)
        columns = []
        for point, metric, output, drawn, normalizer, levels in zip(
            points, self.metrics, outputs, values, self.normalizers, blocks.levels, strict=True
        ):
            names = column_names(metric, normalizer, levels)
            by_path = (self.paths, self.count)
            if isinstance(metric, CrossEntropy):
                shares = output.softmax(-1).unflatten(0, by_path).mean(0)
                labels = normalizer.inverse_transform(shares.argmax(-1).numpy())
                parts = shares.unbind(-1)
                named = {"prediction": labels}
                named |= {name: part.numpy() for name, part in zip(names, parts, strict=True)}
            else:
                mean = point["prediction"].reshape(*by_path, -1).mean(0)
                median = isinstance(metric, QuantileLoss) and can_sample(metric)
                named = {"prediction": np.median(drawn.numpy(), axis=0) if median else mean}
                if levels:
                    at = np.quantile(drawn.numpy(), levels, axis=0).astype(mean.dtype)
                    named |= dict(zip(names, at, strict=True))
            columns.append(named)
        return columns


def _into_support(
    values: np.ndarray, series: np.ndarray, before: Rows, name: str, normalizer: Any
) -> np.ndarray:
    """Move values off the limits of a transformation, where it is infinite.

    Draws reach them: counts of 0 of a Poisson distribution, and probabilities that round to 1.

    Parameters
    ----------
    values : ndarray
        Values that are fed back, for each row.
    series : ndarray of int
        Series of each row.
    before : Rows
        Earlier rows of these series.
    name : str
        The target.
    normalizer : TorchNormalizer or NaNLabelEncoder
        Its normalizer.

    Returns
    -------
    ndarray
        The values; one at a limit is as close to it as the series was, or as 1 if that is closer.
    """
    transformation = getattr(normalizer, "transformation", None)
    if transformation not in ("log", "logit") or isinstance(before.columns[name], Labels):
        return values
    known = to_array(before.columns[name]).astype(float)
    lowest = np.ones(int(before.series.max()) + 1)
    np.fmin.at(lowest, before.series, known)
    values = np.where(values > 0, values, lowest[series])
    if transformation == "logit":
        gap = np.ones(len(lowest))
        np.fmin.at(gap, before.series, 1 - known)
        values = np.where(values < 1, values, 1 - gap[series])
    return values


def _select_series(rows: Rows, chosen: np.ndarray) -> Rows:
    """Select series that follow each other, and number them from 0."""
    selected = rows[(rows.series >= chosen[0]) & (rows.series <= chosen[-1])]
    return Rows(selected.columns, selected.series - chosen[0], selected.times)


def _copy(rows: Rows, count: int, copies: int) -> Rows:
    """Repeat all series, as series of their own."""
    if copies == 1:
        return rows
    repeated = rows[np.tile(np.arange(len(rows)), copies)]
    series = repeated.series + count * np.repeat(np.arange(copies), len(rows))
    return Rows(repeated.columns, series, repeated.times)


def _error_correlations(blocks: Blocks, history: History) -> list[Tensor]:
    """Estimate how the errors of neighboring steps of a forecast correlate, for each series.

    They are those of forecasts whose horizon ends with the history, and of some before.
    """
    schema, metrics = blocks.schema, primary_metrics(blocks.model.loss)
    count, horizon, all_rows = len(history.names), schema.horizon, history.table.rows
    sums = np.zeros((len(metrics), 3, count))
    age = history.last.times[all_rows.series] - all_rows.times
    longest = schema.max_history + horizon + schema.max_lag
    shortest = schema.min_history + horizon + schema.max_lag
    for end in range(0, _ERROR_PAIRS * horizon // max(horizon - 1, 1), horizon):
        is_read = (age >= end) & (age < end + longest)
        in_horizon = is_read & (age < end + horizon)
        complete = np.bincount(all_rows.series, in_horizon, count) == horizon
        complete &= np.bincount(all_rows.series, is_read, count) >= shortest
        if horizon == 1 or not complete.any():
            break
        number = np.cumsum(complete) - 1
        rows = all_rows[is_read & complete[all_rows.series]]
        rows = Rows(rows.columns, number[rows.series], rows.times)
        try:  # earlier rows than those of the forecast need not be valid
            schema.check_values(rows, "data", [*schema.reals, *schema.encoders], history.names)
            outputs = blocks.predict(rows, 1)
        except ValueError:
            break
        points = read_columns(blocks.model, outputs, [[] for _ in outputs], blocks.batch_size)
        actual = all_rows[in_horizon & complete[all_rows.series]]
        for target, metric in enumerate(metrics):
            if not isinstance(metric, CrossEntropy):
                values = to_array(actual.columns[schema.targets[target]]).reshape(-1, horizon)
                error = np.nan_to_num(values - points[target]["prediction"])
                first, second = error[:, :-1], error[:, 1:]
                products = [first * second, first**2, second**2]
                sums[target][:, complete] += [part.sum(1) for part in products]
    product, first, second = sums.swapaxes(0, 1)
    scale = np.sqrt(first * second)
    known = scale > 0
    correlation = np.divide(product, scale, where=known, out=np.zeros_like(scale))
    for values, mask in zip(correlation, known, strict=True):
        values[~mask] = values[mask].mean() if mask.any() else _DEFAULT_CORRELATION
    limited = correlation.clip(-_MAX_CORRELATION, _MAX_CORRELATION)
    return list(torch.from_numpy(limited.astype(np.float32)))
