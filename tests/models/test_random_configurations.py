"""Any table, dataset, loss and model: forecasts are in scale, or an error explains why not.

``make test`` tries 300, the same in every run, and ``make test-all`` 1000;
``RANDOM_CONFIGURATIONS=3000 pytest tests/models/test_random_configurations.py`` tries as many new
ones.
"""

import os
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from lightning import Trainer
from pytorch_forecasting import TimeSeriesDataSet
from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import (
    LogNormalDistributionLoss,
    MultivariateNormalDistributionLoss,
    NormalDistributionLoss,
)
from pytorch_forecasting.utils import to_list
from torch import Tensor

from helpers.datasets import QUIET
from helpers.random_configurations import Case, cases
from pytorch_forecasting_mlstm import mLSTMTime
from pytorch_forecasting_mlstm.models.base.losses.link import (
    Link,
    link_of,
    primary_metrics,
    target_normalizers,
)

#: Number of new ones; without it, they are the same in every run.
EXAMPLES = os.environ.get("RANDOM_CONFIGURATIONS")

#: Errors of pytorch-forecasting on a table or a setting, before there is a model.
UPSTREAM_REJECTS = (
    "filters should not remove entries all entries",  # every series is too short
    "index 0 is out of bounds for axis 0 with size 0",  # no row is left after the lags
    "zero-size array to reduction operation",  # likewise
    "cannot set a frame with no defined index",  # there is no row
    "Found array with 0 sample(s)",  # likewise
    "Time difference between steps has been identified as larger than 1",
    "values were found to be NA or infinite",
    "Input X contains infinity or a value too large",
    "Input X contains NaN",
    "EncoderNormalizer is only allowed if min_encoder_length > 1",
    "Set `add_nan=True` to allow unknown categories",  # of a constant_fill_strategy
    "can't convert np.ndarray of type numpy.object_",  # labels beside reals of a GroupNormalizer
    "torch.finfo() requires a floating point input type",  # softplus of whole numbers
    "The feature names should match",  # lags of a covariate that scikit-learn scales
    "Unable to coerce list of <class 'torch.Tensor'>",  # lags of a target of a TorchNormalizer
    "unhashable type: 'numpy.ndarray'",  # filling in one of several targets
    "stack expects each tensor to be equal size",  # filling in what an encoder scales by itself
)


class RejectedError(Exception):
    """pytorch-forecasting or the model has said what is wrong."""


def build(make: Any, *arguments: Any, **options: Any) -> TimeSeriesDataSet:
    """Make a dataset, which pytorch-forecasting may reject."""
    try:
        return make(*arguments, **options)
    except Exception as error:
        if any(message in str(error) for message in UPSTREAM_REJECTS):
            raise RejectedError(f"upstream: {error}") from error
        raise


def ask(call: Any, *arguments: Any, **options: Any) -> Any:
    """Call this package, whose errors must start with the name of the model."""
    try:
        return call(*arguments, **options)
    except (TypeError, ValueError) as error:
        if str(error).startswith(("mLSTMTime: ", "mLSTMTime.forecast: ")):
            raise RejectedError(str(error)) from error
        raise


def train(model: mLSTMTime, dataset: TimeSeriesDataSet, steps: int) -> None:
    loader = dataset.to_dataloader(train=True, batch_size=8, num_workers=0, drop_last=False)
    trainer = Trainer(**QUIET, max_steps=steps, enable_checkpointing=False)
    trainer.fit(model, loader)


def forecast(case: Case) -> mLSTMTime:
    """Train and predict; assert that predictions are in the scale of the data."""
    torch.manual_seed(0)
    dataset = build(TimeSeriesDataSet, case.table, **case.dataset)
    model = ask(mLSTMTime.from_dataset, dataset, **case.model)
    ask(train, model, dataset, case.steps)
    out = ask(
        model.predict,
        dataset if case.later is None else case.later,
        mode=case.mode,
        return_x=True,
        batch_size=8,
        trainer_kwargs={**QUIET},
    )
    lengths, scales = out.x["decoder_lengths"], to_list(out.x["target_scale"])
    normalizers = target_normalizers(model.output_transformer)
    for number, (name, points) in enumerate(
        zip(dataset.target_names, to_list(out.output), strict=True)
    ):
        points = points[torch.arange(points.shape[1]) < lengths[:, None]]
        assert points.isfinite().all()
        if isinstance(normalizers[number], NaNLabelEncoder):
            known = range(len(normalizers[number].classes_))
            assert case.mode == "quantiles" or set(points.tolist()) <= set(known)
            continue
        values = [dataset.data["target"][number]]
        if case.later is not None:
            values.append(torch.as_tensor(case.later[name].to_numpy(copy=True)))
        if name in dataset.constant_fill_strategy:  # what stands in gaps is data, too
            values.append(torch.tensor([dataset.constant_fill_strategy[name]]))
        known = torch.cat([part.double() for part in values])  # a hole may be where lags take rows
        scale = scales[number][:, 1].repeat_interleave(lengths).double().abs()
        assert_in_scale(
            points,
            known[known.isfinite()],
            scale,
            normalizers[number],
            primary_metrics(model.loss)[number],
            normalizers[number].center or model.hparams.instance_normalization,
        )
    return model


def forecast_ahead(case: Case, model: mLSTMTime) -> None:
    """Forecast the steps after the table, with everything that is known left as it was."""
    table = case.table if case.later is None else case.later
    last = table.sort_values("t").groupby(["shop", "item"]).tail(1)
    horizon = case.dataset["max_prediction_length"]
    future = pd.concat([last.assign(t=last["t"] + step) for step in range(1, horizon + 1)])
    long = ask(model.forecast, table, future, batch_size=3, trainer_kwargs={**QUIET})
    targets = to_list(case.dataset["target"])
    assert len(long) == len(last) * horizon * len(targets)
    for name in targets:
        rows = long[long["target"] == name] if len(targets) > 1 else long
        assert name == "label" or np.isfinite(rows["prediction"].to_numpy(float)).all()
    steps = long.groupby(["shop", "item"])["t"].agg(["min", "max"])
    ends = last.set_index(["shop", "item"])["t"].loc[steps.index]
    assert (steps["min"] == ends + 1).all() and (steps["max"] == ends + horizon).all()


def assert_in_scale(
    points: Tensor, values: Tensor, scale: Tensor, normalizer: Any, loss: Any, centered: bool
) -> None:
    """Assert that forecasts are no farther from the data than 100 times their range.

    This holds in the space of the transformation, if there is one. A constant history has no scale:
    that of the normalizer takes its place.
    """
    made = points.double()
    transformation = normalizer.transformation
    in_logs = link_of(loss) is Link.LOG_RATE or transformation == "log1p"
    if in_logs:  # pytorch-forecasting inverts log1p by exp
        values, made = values.clamp_min(0).log1p(), made.clamp_min(1e-300).log()
        scale = torch.maximum(scale, torch.ones_like(scale))
    elif transformation == "count":  # and softplus of y + 1 by softplus, but for samples by -1
        samples = isinstance(loss, NormalDistributionLoss | MultivariateNormalDistributionLoss)
        back = torch.tensor(1.0).add if samples else normalizer.get_transform("softplus")["forward"]
        # softplus comes no closer to values below 0 than its limit
        values, made = torch.maximum(values + 1, back(torch.zeros_like(values))), back(made)
    else:
        values, made = (normalizer.preprocess(y.float()).double() for y in (values, made))
        values = values[values.isfinite()]  # more of a later table is undefined than what is read
    low, high = values.min(), values.max()
    reach = torch.maximum(high - low, scale)
    if not centered:  # the scale is the distance of the target from 0
        reach = torch.maximum(reach, values.abs().max())
    if isinstance(loss, LogNormalDistributionLoss):  # its mean grows with the square
        reach = reach * (1 + reach)
    reach = 100 * reach.reshape(-1, *[1] * (made.ndim - 1))
    reach = reach + 1e-6 * max(low.abs(), high.abs())  # samples of a distribution are rounded
    if transformation in ("softplus", "logit"):  # near their limit of 1e-7, all is rounding
        reach = reach + 1
    assert (made - high <= reach).all(), (made.max(), high, reach.min())
    # with a transformation, what is far below is near its limit: exp(-1000) is 0
    if transformation is None and not in_logs:
        assert (low - made <= reach).all(), (made.min(), low, reach.min())


def shorten(message: str) -> str:
    return " ".join(message.split()[:7])


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow_matrix)])
def test_forecasts_are_in_scale_or_rejected(count: int) -> None:
    outcomes: Counter[str] = Counter()
    ahead: Counter[bool] = Counter()

    @settings(
        max_examples=int(EXAMPLES or count),
        deadline=None,
        derandomize=EXAMPLES is None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(cases())
    def run(case: Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of scales, lengths and unknown labels
            try:
                model = forecast(case)
                outcomes["forecast"] += 1
            except RejectedError as error:
                outcomes[shorten(str(error))] += 1
                return
            try:
                forecast_ahead(case, model)
                ahead[True] += 1
            except RejectedError:
                ahead[False] += 1

    run()
    # a test of rejections alone would show nothing
    assert outcomes["forecast"] > 0.25 * outcomes.total(), outcomes.most_common()
    assert ahead[True] > 0.25 * ahead.total(), ahead
