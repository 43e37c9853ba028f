"""Random difficult tables, and random datasets, losses and models for them."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import torchmetrics
from hypothesis import strategies as st
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
)
from pytorch_forecasting.data import TorchNormalizer
from pytorch_forecasting.metrics import (
    MAE,
    MAPE,
    MASE,
    RMSE,
    SMAPE,
    BetaDistributionLoss,
    CrossEntropy,
    ImplicitQuantileNetworkDistributionLoss,
    LogNormalDistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)

SHAPES = ("noise", "constant", "zeros", "ramp", "jump", "spike", "rare", "counts", "shares")
SCALES = (1.0, 1.0, 6490.0, 1e-8, 1e8)
TRANSFORMATIONS = ("log", "log1p", "logit", "count", "softplus", "relu", "sqrt")


class Case(NamedTuple):
    """A table to train on, a table to forecast, and arguments."""

    table: pd.DataFrame
    later: pd.DataFrame | None  # if None, forecast the training dataset
    dataset: dict[str, Any]
    model: dict[str, Any]
    steps: int
    mode: str


def _values(rng: np.random.Generator, shape: str, steps: int) -> np.ndarray:
    noise = rng.normal(size=steps)
    return {
        "noise": noise + 5 * rng.normal(),
        "constant": np.full(steps, rng.normal()),
        "zeros": np.zeros(steps),
        "ramp": np.arange(steps, dtype=float),
        "jump": np.where(np.arange(steps) < steps // 2, 0.0, 3 + noise),
        "spike": np.where(np.arange(steps) == steps - 1, 1e4, noise),
        "rare": rng.poisson(0.1, steps).astype(float),
        "counts": rng.poisson(20, steps).astype(float),
        "shares": rng.uniform(size=steps),
    }[shape]


@st.composite
def tables(draw: st.DrawFn, labels: bool = True) -> pd.DataFrame:
    """Draw series of several lengths, starts, shapes and scales, with missing steps and values."""
    rng = np.random.default_rng(draw(st.integers(0, 2**16)))
    parts = []
    scales = draw(st.tuples(*[st.sampled_from(SCALES)] * 3))
    for number in range(draw(st.integers(1, 3))):
        steps = draw(st.sampled_from([14, 20, 17, 9, 5, 1]))
        columns: dict[str, Any] = {
            name: scale * _values(rng, draw(st.sampled_from(SHAPES)), steps)
            for name, scale in zip(("y", "z", "price"), scales, strict=True)
        }
        parts.append(
            pd.DataFrame(
                {
                    "shop": f"shop {number // 2}",
                    "item": f"item {number}",
                    "t": np.arange(steps) + draw(st.sampled_from([0, 7, -3, 10**6])),
                    **columns,
                    "noise": rng.normal(size=steps),
                    "size": float(number),
                    "label": rng.choice(["up", "mid", "down"], steps),
                    "day": rng.choice(["mon", "tue"] if labels else ["mon", "sat"], steps),
                    "sky": rng.choice(["clear", "gray"], steps),
                    "event": rng.choice(["none", "fair"], steps),
                    "region": "north" if number == 0 else "south",
                    "weight": rng.choice([0.0, 1.0, 2.0], steps),
                }
            )
        )
    table = pd.concat(parts, ignore_index=True)
    if draw(st.integers(0, 3)) == 0:
        table = table[rng.random(len(table)) > 0.15].reset_index(drop=True)
    if draw(st.booleans()):
        table = table.sample(frac=1.0, random_state=1)
    kind = draw(st.sampled_from([None, None, "abs", "integer", "float32"]))
    if kind == "abs":
        table[["y", "z"]] = table[["y", "z"]].abs()
    elif kind == "integer":
        table[["y", "z"]] = table[["y", "z"]].round().abs().astype("int64")
    elif kind == "float32":
        table[["y", "z", "price"]] = table[["y", "z", "price"]].astype("float32")
    if draw(st.integers(0, 19)) == 0 and len(table):
        column = draw(st.sampled_from(["y", "price", "weight"]))
        table[column] = table[column].astype(float)
        table.iloc[0, table.columns.get_loc(column)] = draw(st.sampled_from([np.nan, np.inf]))
    return table


transformations = st.one_of(st.none(), st.sampled_from(TRANSFORMATIONS))
methods = st.sampled_from(["standard", "robust", "identity"])
plain_normalizers = st.builds(EncoderNormalizer, method=methods, center=st.booleans())
encoder_normalizers = st.builds(
    EncoderNormalizer,
    method=methods,
    center=st.booleans(),
    max_length=st.sampled_from([None, 3, [2, 4]]),
    transformation=transformations,
)
normalizers = st.one_of(
    st.builds(
        GroupNormalizer,
        method=st.sampled_from(["standard", "robust"]),
        groups=st.sampled_from([None, ["shop"], ["shop", "item"]]),
        center=st.booleans(),
        transformation=transformations,
    ),
    st.builds(
        GroupNormalizer,
        groups=st.just(["shop", "item"]),
        scale_by_group=st.just(True),
        transformation=transformations,
    ),
    encoder_normalizers,
    st.builds(TorchNormalizer, methods, st.booleans(), transformations),
)


def losses(transformation: str | None) -> st.SearchStrategy[Any]:
    """Draw a loss, most often one that suits the transformation."""
    common = [MAE, SMAPE, MAPE, RMSE, MASE, QuantileLoss, NormalDistributionLoss]
    rare = [
        PoissonLoss,
        TweedieLoss,
        NegativeBinomialDistributionLoss,
        lambda: MultivariateNormalDistributionLoss(rank=2),
        lambda: ImplicitQuantileNetworkDistributionLoss(hidden_size=4, n_loss_samples=8),
        lambda: SMAPE() + MAE(),
        lambda: QuantileLoss([0.2, 0.9]),
        torchmetrics.MeanSquaredError,
        LogNormalDistributionLoss,
        BetaDistributionLoss,
    ]
    if transformation == "log":
        common.append(LogNormalDistributionLoss)
    if transformation == "logit":
        common.append(BetaDistributionLoss)
    return st.sampled_from([*common, *common, *rare]).map(lambda make: make())


def _sample(draw: st.DrawFn, names: list[str]) -> list[str]:
    return [name for name in names if draw(st.booleans())]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a table, a dataset of it, a loss and a model."""
    table = draw(tables())
    history, horizon = draw(st.integers(1, 7)), draw(st.integers(1, 4))
    min_history = draw(st.sampled_from([history, 0, 1, 2, 2]))
    targets = draw(st.sampled_from([["y"], ["y"], ["y"], ["y", "z"], ["label"], ["y", "label"]]))
    is_list = len(targets) > 1 or draw(st.integers(0, 5)) == 0
    # beside a label, pytorch-forecasting allows no transformation
    kinds = plain_normalizers if "label" in targets else normalizers
    target_normalizers = [NaNLabelEncoder() if name == "label" else draw(kinds) for name in targets]
    target_losses = [
        CrossEntropy() if name == "label" else draw(losses(normalizer.transformation))
        for name, normalizer in zip(targets, target_normalizers, strict=True)
    ]
    is_auto = draw(st.integers(0, 5)) == 0
    normalizer = MultiNormalizer(target_normalizers) if is_list else target_normalizers[0]
    known = _sample(draw, ["day"])
    unknown = _sample(draw, ["sky"])
    grouped = draw(st.integers(0, 3)) == 0
    unknown_reals = [name for name in targets if name != "label" and draw(st.integers(0, 3)) > 0]
    reals = _sample(draw, ["price"])
    past_reals = _sample(draw, ["noise"])
    lagged = [name for name in (*unknown_reals, *past_reals) if draw(st.integers(0, 3)) == 0]
    inputs = [*known, *unknown, *unknown_reals, *reals, *past_reals]
    fills = {"y": 0.0, "z": 1.0, "price": 2.0, "noise": 0.0, "day": "mon", "sky": "gray"}
    scalers = {
        name: draw(st.one_of(st.none(), encoder_normalizers, st.builds(GroupNormalizer)))
        for name in (*reals, *past_reals)
        if name in lagged or draw(st.integers(0, 2)) == 0
    }
    dataset = dict(
        time_idx="t",
        target=targets if is_list else targets[0],
        group_ids=["shop", "item"],
        max_encoder_length=history,
        min_encoder_length=min(min_history, history),
        max_prediction_length=horizon,
        min_prediction_length=draw(st.sampled_from([horizon, horizon, 1])),
        allow_missing_timesteps=draw(st.integers(0, 9)) > 0,
        constant_fill_strategy={
            name: fills[name] for name in inputs if name in fills and draw(st.integers(0, 3)) == 0
        },
        static_categoricals=_sample(draw, ["region"]),
        static_reals=_sample(draw, ["size"]),
        variable_groups={"events": ["event", "sky"]} if grouped and "sky" not in unknown else {},
        time_varying_known_categoricals=[
            *known,
            *(["events"] if grouped and "sky" not in unknown else []),
        ],
        time_varying_known_reals=[*reals, *_sample(draw, ["t"])],
        time_varying_unknown_categoricals=[*unknown, *(["label"] if "label" in targets else [])],
        time_varying_unknown_reals=[*unknown_reals, *past_reals],
        weight=draw(st.sampled_from([None, None, None, "weight"])),
        lags={name: draw(st.sampled_from([[1], [2, 5]])) for name in lagged},
        add_relative_time_idx=draw(st.booleans()),
        add_encoder_length=draw(st.booleans()),
        add_target_scales=draw(st.booleans()),
        randomize_length=draw(st.sampled_from([None, None, True])),
        target_normalizer="auto" if is_auto else normalizer,
        categorical_encoders=(
            {name: NaNLabelEncoder(add_nan=True) for name in (*known, *unknown)}
            if draw(st.booleans())
            else {}
        ),
        scalers=scalers,
    )
    heads = draw(st.sampled_from([1, 2]))
    loss: Any = MultiLoss(target_losses) if is_list else target_losses[0]
    if draw(st.integers(0, 7)) == 0:
        loss = None
    model = dict(
        loss=loss,
        hidden_size=heads * draw(st.sampled_from([1, 2, 4])),
        num_heads=heads,
        num_layers=draw(st.sampled_from([1, 1, 2])),
        dropout=draw(st.sampled_from([0.0, 0.3])),
        patch_length=draw(st.sampled_from([None, None, 1, 2, 5])),
        moving_averages=draw(st.sampled_from([(1, 1), (3, 2), (171, 25)])),
        instance_normalization=draw(st.integers(0, 3)) > 0,
        learning_rate=draw(st.sampled_from([1e-3, 1e-2])),
    )
    later = draw(tables(labels=False)) if draw(st.integers(0, 3)) == 0 else None
    mode = draw(st.sampled_from(["prediction", "quantiles"]))
    return Case(table, later, dataset, model, draw(st.integers(1, 2)), mode)
