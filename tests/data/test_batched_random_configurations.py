"""Parity in random configurations, which Hypothesis shrinks if they fail."""

import warnings
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, assume, given, settings
from hypothesis import strategies as st
from pytorch_forecasting.data import TimeSeriesDataSet
from pytorch_forecasting.data.encoders import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TorchNormalizer,
)

from helpers.batch_comparison import assert_batches_match
from helpers.batched_configurations import panel
from pytorch_forecasting_mlstm.data import BatchedTimeSeriesDataSet

encoder_normalizers = st.builds(
    EncoderNormalizer,
    method=st.sampled_from(["standard", "robust", "identity"]),
    center=st.booleans(),
    max_length=st.one_of(
        st.none(), st.integers(2, 6), st.lists(st.integers(2, 6), min_size=2, max_size=2)
    ),
    transformation=st.sampled_from([None, "log", "log1p", "relu", "sqrt"]),
)
group_normalizers = st.builds(
    GroupNormalizer,
    method=st.sampled_from(["standard", "robust"]),
    groups=st.sampled_from([["shop"], ["product"], ["shop", "product"]]),
    transformation=st.sampled_from([None, "log1p"]),
)
normalizers = st.one_of(encoder_normalizers, group_normalizers, st.builds(TorchNormalizer))


@st.composite
def table_and_arguments(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """Draw a table, and arguments that pytorch-forecasting accepts for it."""
    gaps = draw(st.sampled_from([0.0, 0.15, 0.5]))
    table = panel(draw(st.integers(0, 3)), gaps=gaps, lengths=(17, 14, 20, 13))
    history = draw(st.integers(2, 8))
    horizon = draw(st.integers(1, 4))
    targets = draw(st.sampled_from(["y", "rain", ["y"], ["rain", "y"]]))
    is_list = isinstance(targets, list)
    normalizer = (
        MultiNormalizer([draw(normalizers) for _ in targets]) if is_list else draw(normalizers)
    )
    covariates = [name for name in ("price", "rain", "signed") if name not in targets]
    unknown = draw(st.lists(st.sampled_from(covariates[1:]), unique=True))
    lagged = draw(st.lists(st.sampled_from(targets if is_list else [targets]), unique=True))
    fills = {"y": 40.0, "rain": 0.5, "price": 1.0, "sky": "gray", "region": "south"}
    used = {"sky", "region", "price", *unknown, *(targets if is_list else [targets])}
    return table, dict(
        time_idx="time",
        target=targets,
        group_ids=["shop", "product"],
        max_encoder_length=history,
        min_encoder_length=draw(st.integers(2, history)),
        max_prediction_length=horizon,
        min_prediction_length=draw(st.integers(1, horizon)),
        allow_missing_timesteps=gaps > 0,
        constant_fill_strategy={
            name: value for name, value in fills.items() if name in used and draw(st.booleans())
        },
        static_categoricals=["region"],
        time_varying_known_categoricals=draw(st.sampled_from([[], ["day"]])),
        time_varying_known_reals=draw(st.sampled_from([["price"], ["price", "time"]])),
        time_varying_unknown_categoricals=["sky"],
        time_varying_unknown_reals=[*(targets if is_list else [targets]), *unknown],
        weight=draw(st.sampled_from([None, "weight"])),
        lags={name: draw(st.sampled_from([[1], [2, 5]])) for name in lagged},
        add_relative_time_idx=draw(st.booleans()),
        add_encoder_length=draw(st.booleans()),
        add_target_scales=draw(st.booleans()),
        randomize_length=draw(st.sampled_from([None, True, (1.0, 1.0)])),
        predict_mode=draw(st.sampled_from([False, False, True])),
        target_normalizer=normalizer,
        categorical_encoders={"sky": NaNLabelEncoder(add_nan=True)},
        scalers={
            name: draw(encoder_normalizers)
            for name in ("price", *unknown)
            if name != "signed" and draw(st.booleans())
        },
    )


@pytest.mark.parametrize("examples", [10, pytest.param(25, marks=pytest.mark.slow)])
def test_batches_match_upstream_in_random_configurations(examples: int) -> None:
    @settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
    )
    @given(table_and_arguments(), st.integers(0, 2**16), st.sampled_from([1, 5, 32]))
    def check(case: tuple[Any, dict[str, Any]], seed: int, batch_size: int) -> None:
        table, arguments = case
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # upstream warns about scales, lengths and names
            try:
                stock = TimeSeriesDataSet(table, **arguments)
                torch.manual_seed(seed)
                expected = list(stock.to_dataloader(train=False, batch_size=batch_size))
            except (AssertionError, RuntimeError, TypeError, ValueError):
                assume(False)  # upstream rejects it, for example if no sample is left
            batched = BatchedTimeSeriesDataSet.wrap(stock)
            torch.manual_seed(seed)
            actual = list(batched.to_dataloader(train=False, batch_size=batch_size))
            assert_batches_match(actual, expected, stock)
        assert not batched._warned_reasons

    check()
