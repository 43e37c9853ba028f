"""For any table, dataset, loss and model, forecasts are in scale or an error explains why not.

``make test-all`` draws 450 cases, the same in every run, and ``make test`` 50 of them.
``RANDOM_CONFIGURATIONS=3000 pytest tests/models/test_random_configurations.py`` draws 3000 new
cases.
"""

import os
import random
import warnings
from collections import Counter
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, seed, settings
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
from pytorch_forecasting_mlstm.models.base.link import Link
from pytorch_forecasting_mlstm.models.base.losses.link import (
    link_of,
    primary_metrics,
    target_normalizers,
)

#: Number of new cases; if it is unset, the cases are the same in every run.
EXAMPLES = os.environ.get("RANDOM_CONFIGURATIONS")

#: Errors of pytorch-forecasting on a table or a setting, before there is a model.
UPSTREAM_REJECTS = (
    "filters should not remove entries all entries",  # every series is too short
    "index 0 is out of bounds for axis 0 with size 0",  # lags leave no row
    "zero-size array to reduction operation",  # likewise
    "cannot set a frame with no defined index",  # there are no rows
    "Found array with 0 sample(s)",  # likewise
    "Time difference between steps has been identified as larger than 1",
    "values were found to be NA or infinite",
    "Input X contains infinity or a value too large",
    "Input X contains NaN",
    "EncoderNormalizer is only allowed if min_encoder_length > 1",
    "Set `add_nan=True` to allow unknown categories",  # of a constant_fill_strategy
    "can't convert np.ndarray of type numpy.object_",  # labels beside reals of a GroupNormalizer
    "torch.finfo() requires a floating point input type",  # softplus of integers
    "The feature names should match",  # lags of a covariate that scikit-learn scales
    "Unable to coerce list of <class 'torch.Tensor'>",  # lags of a target with a TorchNormalizer
    "unhashable type: 'numpy.ndarray'",  # a fill value for one of several targets
    "stack expects each tensor to be equal size",  # a fill value with an EncoderNormalizer
)


class RejectedError(Exception):
    """pytorch-forecasting or the model raised an expected error."""


def build(make: Any, *arguments: Any, **options: Any) -> TimeSeriesDataSet:
    """Make a dataset, which pytorch-forecasting may reject."""
    try:
        return make(*arguments, **options)
    except Exception as error:
        if any(message in str(error) for message in UPSTREAM_REJECTS):
            raise RejectedError(f"upstream: {error}") from error
        raise


def call_model(call: Any, *arguments: Any, **options: Any) -> Any:
    """Call this package; an expected error starts with the name of the model."""
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
    model = call_model(mLSTMTime.from_dataset, dataset, **case.model)
    call_model(train, model, dataset, case.steps)
    out = call_model(
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
        if name in dataset.constant_fill_strategy:  # fill values are data, too
            values.append(torch.tensor([dataset.constant_fill_strategy[name]]))
        known = torch.cat([part.double() for part in values])  # may be NaN in rows lost to lags
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
    """Forecast the steps after the table, with the last known values of all variables."""
    table = case.table if case.later is None else case.later
    last = table.sort_values("t").groupby(["shop", "item"]).tail(1)
    horizon = case.dataset["max_prediction_length"]
    future = pd.concat([last.assign(t=last["t"] + step) for step in range(1, horizon + 1)])
    forecasts = call_model(model.forecast, table, future, batch_size=3, trainer_kwargs={**QUIET})
    # the second time, only the rows of the dataset are made anew
    again = call_model(model.forecast, table, future, batch_size=3)
    pd.testing.assert_frame_equal(again, forecasts, rtol=1e-4, atol=1e-6)
    targets = to_list(case.dataset["target"])
    assert len(forecasts) == len(last) * horizon * len(targets)
    for name in targets:
        rows = forecasts[forecasts["target"] == name] if len(targets) > 1 else forecasts
        assert name == "label" or np.isfinite(rows["prediction"].to_numpy(float)).all()
    steps = forecasts.groupby(["shop", "item"])["t"].agg(["min", "max"])
    ends = last.set_index(["shop", "item"])["t"].loc[steps.index]
    assert (steps["min"] == ends + 1).all() and (steps["max"] == ends + horizon).all()


def assert_in_scale(
    points: Tensor, values: Tensor, scale: Tensor, normalizer: Any, loss: Any, centered: bool
) -> None:
    """Assert that forecasts are no farther from the data than 100 times the range of the data.

    Distances are measured after the transformation, if there is one. If the history is constant,
    the scale of the normalizer replaces its range.
    """
    forecasts = points.double()
    transformation = normalizer.transformation
    in_logs = link_of(loss) is Link.LOG_RATE or transformation == "log1p"
    if in_logs:  # pytorch-forecasting inverts log1p by exp
        values, forecasts = values.clamp_min(0).log1p(), forecasts.clamp_min(1e-300).log()
        scale = torch.maximum(scale, torch.ones_like(scale))
    elif transformation == "count":  # and softplus of y + 1 by softplus, but for samples by -1
        samples = isinstance(loss, NormalDistributionLoss | MultivariateNormalDistributionLoss)
        back = torch.tensor(1.0).add if samples else normalizer.get_transform("softplus")["forward"]
        # softplus maps values below 0 to its limit
        values, forecasts = (
            torch.maximum(values + 1, back(torch.zeros_like(values))),
            back(forecasts),
        )
    else:
        values, forecasts = (normalizer.preprocess(y.float()).double() for y in (values, forecasts))
        values = values[
            values.isfinite()
        ]  # a later table may have undefined values that are unread
    low, high = values.min(), values.max()
    reach = torch.maximum(high - low, scale)
    if not centered:  # the scale is the distance of the target from 0
        reach = torch.maximum(reach, values.abs().max())
    if isinstance(loss, LogNormalDistributionLoss):  # its mean grows with the square
        reach = reach * (1 + reach)
    reach = 100 * reach.reshape(-1, *[1] * (forecasts.ndim - 1))
    reach = reach + 1e-6 * max(low.abs(), high.abs())  # samples of a distribution are rounded
    if transformation in ("softplus", "logit"):  # rounding dominates near their limit of 1e-7
        reach = reach + 1
    assert (forecasts - high <= reach).all(), (forecasts.max(), high, reach.min())
    # with a transformation, low values approach its limit: exp(-1000) is 0
    if transformation is None and not in_logs:
        assert (low - forecasts <= reach).all(), (forecasts.min(), low, reach.min())


def shorten(message: str) -> str:
    return " ".join(message.split()[:7])


# in parts, which run side by side
@pytest.mark.parametrize(
    ("part", "count"),
    [(0, 25), *(pytest.param(part, 100, marks=pytest.mark.slow) for part in range(1, 5))],
)
def test_forecasts_are_in_scale_or_rejected(part: int, count: int) -> None:
    outcomes: Counter[str] = Counter()
    accepted: Counter[bool] = Counter()

    @settings(
        max_examples=int(EXAMPLES or count),
        deadline=None,
        database=None,
        phases=[Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @seed(part if EXAMPLES is None else random.SystemRandom().randrange(2**64))
    @given(cases())
    def run(case: Case) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about scales, lengths and unknown labels
            try:
                model = forecast(case)
                outcomes["forecast"] += 1
            except RejectedError as error:
                outcomes[shorten(str(error))] += 1
                return
            try:
                forecast_ahead(case, model)
                accepted[True] += 1
            except RejectedError:
                accepted[False] += 1

    run()
    if part:  # rejections show little, but Hypothesis begins with simple cases, of which most are
        assert outcomes["forecast"] > 0.15 * outcomes.total(), outcomes.most_common()
        assert accepted[True] > 0.25 * accepted.total(), accepted
    assert outcomes["forecast"] and accepted[True]
