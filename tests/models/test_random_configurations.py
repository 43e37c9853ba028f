"""Whatever the table, the dataset, the loss and the model: forecasts in scale, or a clear error.

``make test`` tries 300, the same at every run, and ``make test-all`` 1000;
``RANDOM_CONFIGURATIONS=3000 pytest tests/test_random_configurations.py`` tries as many new ones.
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

#: How many are drawn anew; without, they are the same at every run.
EXAMPLES = os.environ.get("RANDOM_CONFIGURATIONS")

#: What the host says when it refuses a table or a setting, before there is a model.
HOST_REFUSES = (
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


class RefusedError(Exception):
    """The host or the model has said what is wrong."""


def build(make: Any, *arguments: Any, **options: Any) -> TimeSeriesDataSet:
    """Make a dataset, which the host may refuse."""
    try:
        return make(*arguments, **options)
    except Exception as error:
        if any(message in str(error) for message in HOST_REFUSES):
            raise RefusedError(f"host: {error}") from error
        raise


def ask(call: Any, *arguments: Any, **options: Any) -> Any:
    """Call what is ours: no error may come out but those that start with our name."""
    try:
        return call(*arguments, **options)
    except (TypeError, ValueError) as error:
        if str(error).startswith(("mLSTMTime: ", "mLSTMTime.forecast: ")):
            raise RefusedError(str(error)) from error
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
        known = torch.cat([each.double() for each in values])  # a hole may be where lags take rows
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
    """Forecast what comes after the table, and all that is known of it stays what it was."""
    table = case.table if case.later is None else case.later
    last = table.sort_values("t").groupby(["shop", "item"]).tail(1)
    horizon = case.dataset["max_prediction_length"]
    future = pd.concat([last.assign(t=last["t"] + step) for step in range(1, horizon + 1)])
    tidy = ask(model.forecast, table, future, batch_size=3, trainer_kwargs={**QUIET})
    targets = to_list(case.dataset["target"])
    assert len(tidy) == len(last) * horizon * len(targets)
    for name in targets:
        own = tidy[tidy["target"] == name] if len(targets) > 1 else tidy
        assert name == "label" or np.isfinite(own["prediction"].to_numpy(float)).all()
    steps = tidy.groupby(["shop", "item"])["t"].agg(["min", "max"])
    ends = last.set_index(["shop", "item"])["t"].loc[steps.index]
    assert (steps["min"] == ends + 1).all() and (steps["max"] == ends + horizon).all()


def assert_in_scale(
    points: Tensor, values: Tensor, scale: Tensor, normalizer: Any, loss: Any, centered: bool
) -> None:
    """Assert that forecasts are within 100 times the range of the data, around them.

    Where the forecast is made in the space of a transformation, there. A history that does not
    vary says nothing about the scale: the host's takes its place.
    """
    made = points.double()
    transformation = normalizer.transformation
    in_logs = link_of(loss) is Link.LOG_RATE or transformation == "log1p"
    if in_logs:  # the host's way back from log1p is the exponential
        values, made = values.clamp_min(0).log1p(), made.clamp_min(1e-300).log()
        scale = torch.maximum(scale, torch.ones_like(scale))
    elif transformation == "count":  # and from one more, it is softplus, but of samples one less
        samples = isinstance(loss, NormalDistributionLoss | MultivariateNormalDistributionLoss)
        back = torch.tensor(1.0).add if samples else normalizer.get_transform("softplus")["forward"]
        # of what is below 0, softplus can come no closer than its edge
        values, made = torch.maximum(values + 1, back(torch.zeros_like(values))), back(made)
    else:
        values, made = (normalizer.preprocess(y.float()).double() for y in (values, made))
        values = values[values.isfinite()]  # of a later table more is undefined than is read
    low, high = values.min(), values.max()
    reach = torch.maximum(high - low, scale)
    if not centered:  # nothing is measured but how far from 0 the target is
        reach = torch.maximum(reach, values.abs().max())
    if isinstance(loss, LogNormalDistributionLoss):  # the mean of it grows with the square
        reach = reach * (1 + reach)
    reach = 100 * reach.reshape(-1, *[1] * (made.ndim - 1))
    reach = reach + 1e-6 * max(low.abs(), high.abs())  # samples of a distribution are rounded
    if transformation in ("softplus", "logit"):  # at their edge, which is 1e-7, all is rounding
        reach = reach + 1
    assert (made - high <= reach).all(), (made.max(), high, reach.min())
    # with a transformation, far below is near its edge: exp(-1000) is 0
    if transformation is None and not in_logs:
        assert (low - made <= reach).all(), (made.min(), low, reach.min())


def shorten(message: str) -> str:
    return " ".join(message.split()[:7])


@pytest.mark.slow
@pytest.mark.parametrize("count", [300, pytest.param(1000, marks=pytest.mark.slow_matrix)])
def test_forecasts_are_in_scale_or_refused(count: int) -> None:
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
            warnings.simplefilter("ignore")  # the host's, on scales, lengths and unknown labels
            try:
                model = forecast(case)
                outcomes["forecast"] += 1
            except RefusedError as error:
                outcomes[shorten(str(error))] += 1
                return
            try:
                forecast_ahead(case, model)
                ahead[True] += 1
            except RefusedError:
                ahead[False] += 1

    run()
    # a test of refusals alone would show nothing
    assert outcomes["forecast"] > 0.25 * outcomes.total(), outcomes.most_common()
    assert ahead[True] > 0.25 * ahead.total(), ahead
