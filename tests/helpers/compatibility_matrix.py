"""The matrix of losses, targets, normalizers and datasets, and the test of one cell."""

import tempfile
import warnings
from collections.abc import Callable, Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch

import matplotlib.pyplot as plt
import torch
import torchmetrics
from lightning import Callback, LightningModule, Trainer
from matplotlib.figure import Figure
from pytorch_forecasting import (
    EncoderNormalizer,
    GroupNormalizer,
    MultiNormalizer,
    NaNLabelEncoder,
    TimeSeriesDataSet,
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
    MQF2DistributionLoss,
    MultiLoss,
    MultivariateNormalDistributionLoss,
    NegativeBinomialDistributionLoss,
    NormalDistributionLoss,
    PoissonLoss,
    QuantileLoss,
    TweedieLoss,
)
from pytorch_forecasting.metrics.base_metrics import AggregationMetric
from pytorch_forecasting.utils import to_list
from torch import Tensor

from helpers.datasets import HORIZON, QUIET, make_dataset, make_gaps, make_table
from pytorch_forecasting_mlstm import mLSTMTime

PASS = "pass"


class Row(NamedTuple):
    """A loss, and the kind of target it is meant for."""

    make: Callable[[int], Any]  # from the horizon
    target: str = "y"
    transformation: str | None = None
    center: bool = True


LOSSES: dict[str, Row] = {
    "MAE()": Row(lambda _: MAE()),
    "MAPE()": Row(lambda _: MAPE()),
    "SMAPE()": Row(lambda _: SMAPE()),
    "RMSE()": Row(lambda _: RMSE()),
    "MASE()": Row(lambda _: MASE()),
    "SMAPE() + MAE()": Row(lambda _: SMAPE() + MAE()),
    "0.5 * MAE()": Row(lambda _: 0.5 * MAE()),
    "AggregationMetric(MAE())": Row(lambda _: AggregationMetric(MAE())),
    "torchmetrics.MeanSquaredError()": Row(lambda _: torchmetrics.MeanSquaredError()),
    "PoissonLoss()": Row(lambda _: PoissonLoss(), "count"),
    "TweedieLoss()": Row(lambda _: TweedieLoss(), "count"),
    "QuantileLoss()": Row(lambda _: QuantileLoss()),
    "QuantileLoss([0.9, 0.2])": Row(lambda _: QuantileLoss([0.9, 0.2])),
    "CrossEntropy()": Row(lambda _: CrossEntropy(), "label"),
    "NormalDistributionLoss()": Row(lambda _: NormalDistributionLoss()),
    "LogNormalDistributionLoss()": Row(lambda _: LogNormalDistributionLoss(), "y", "log"),
    "NegativeBinomialDistributionLoss()": Row(
        lambda _: NegativeBinomialDistributionLoss(), "count", None, False
    ),
    "BetaDistributionLoss()": Row(lambda _: BetaDistributionLoss(), "share", "logit"),
    "MultivariateNormalDistributionLoss(rank=3)": Row(
        lambda _: MultivariateNormalDistributionLoss(rank=3)
    ),
    "ImplicitQuantileNetworkDistributionLoss()": Row(
        lambda _: ImplicitQuantileNetworkDistributionLoss()
    ),
    "MQF2DistributionLoss(horizon)": Row(
        lambda horizon: MQF2DistributionLoss(horizon, es_num_samples=5)
    ),
}

#: Normalizers, given a transformation and whether to center.
_KINDS: dict[str, Callable[..., Any]] = {
    "GroupNormalizer": lambda **options: GroupNormalizer(groups=["series"], **options),
    "EncoderNormalizer": EncoderNormalizer,
    "TorchNormalizer": TorchNormalizer,
}
TRANSFORMATIONS = (None, "log", "log1p", "logit", "count", "softplus", "relu", "sqrt", "custom")
CUSTOM_TRANSFORMATION = {"forward": torch.asinh, "reverse": torch.sinh}
NORMALIZERS: dict[str, tuple[str, str | None]] = {
    **{f"{kind}, {t or 'none'}": (kind, t) for kind in _KINDS for t in TRANSFORMATIONS},
    "identity": ("identity", None),
    "None": ("None", None),
    "auto": ("auto", None),
}

#: Datasets, by what is special about them.
SETTINGS: dict[str, dict[str, Any]] = {
    "fixed lengths": {},
    "histories of 2 to 8 steps": {"min_encoder_length": 2},
    "histories of 0 to 8 steps": {"min_encoder_length": 0},
    "horizons of 1 to 4 steps": {"min_prediction_length": 1},
    "random lengths": {"min_encoder_length": 0, "randomize_length": True},
    "history of 1 step": {"max_encoder_length": 1},
    "horizon of 1 step": {"max_prediction_length": 1},
    "history of 0 or 1 step, horizon of 1": {
        "min_encoder_length": 0,
        "max_encoder_length": 1,
        "max_prediction_length": 1,
    },
    "lags": {"lags": [1, 5]},
    "missing steps": {"table": "gaps", "allow_missing_timesteps": True, "min_encoder_length": 4},
    "weights": {"weight": "weight"},
    "target scales": {"add_target_scales": True},
    "covariates": {
        "static_categoricals": ["region"],
        "static_reals": ["size"],
        "time_varying_known_categoricals": ["holiday"],
        "time_varying_known_reals": ["price"],
        "time_varying_unknown_categoricals": ["state"],
    },
}

#: Targets in addition to that of the loss, with their losses, and whether they are in a list.
TARGETS: dict[str, tuple[list[tuple[str, str]], bool]] = {
    "one": ([], False),
    "list of one": ([], True),
    "two, same loss": ([("same", "same")], True),
    "plus a real one, MAE": ([("signed", "MAE()")], True),
    "plus a real one, QuantileLoss": ([("signed", "QuantileLoss()")], True),
    "plus a real one, Normal": ([("signed", "NormalDistributionLoss()")], True),
    "plus a categorical one": ([("label", "CrossEntropy()")], True),
}


def normalizer_of(name: str, center: bool) -> Any:
    """Make a normalizer."""
    kind, transformation = NORMALIZERS[name]
    if kind in _KINDS:
        if transformation == "custom":
            return _KINDS[kind](transformation=dict(CUSTOM_TRANSFORMATION), center=center)
        return _KINDS[kind](transformation=transformation, center=center)
    return {"identity": TorchNormalizer(method="identity"), "None": None, "auto": "auto"}[kind]


def natural_normalizer(row: Row) -> str:
    """Return the name of the normalizer that a loss is used with by default."""
    return f"GroupNormalizer, {row.transformation or 'none'}"


class UpstreamRejectsError(Exception):
    """pytorch-forecasting cannot make the dataset."""


@cache
def _table(gaps: bool) -> Any:
    table = make_table(n_series=2, steps=20)
    table["label 2"], table["share 2"] = table["label"].to_numpy()[::-1], 1 - table["share"]
    return make_gaps(table) if gaps else table


@cache
def dataset_of(
    columns: tuple[str, ...], normalizers: tuple[tuple[str, bool], ...], listed: bool, setting: str
) -> TimeSeriesDataSet | Exception:
    """Make a dataset once; return the exception if pytorch-forecasting cannot make it."""
    special = deepcopy(SETTINGS[setting])
    special["table"] = _table(special.get("table") == "gaps")
    if "lags" in special:
        special["lags"] = {column: special["lags"] for column in columns}
    real = [column for column in columns if not column.startswith("label")]
    labels = [column for column in columns if column.startswith("label")]
    classes = special.pop("time_varying_unknown_categoricals", [])
    scales: list[Any] = [
        NaNLabelEncoder() if column in labels else normalizer_of(*normalizer)
        for column, normalizer in zip(columns, normalizers, strict=True)
    ]
    try:
        return make_dataset(
            target=list(columns) if listed else columns[0],
            time_varying_unknown_reals=real,
            time_varying_unknown_categoricals=[*classes, *labels],
            target_normalizer=MultiNormalizer(scales) if listed else scales[0],
            **special,
        )
    except Exception as error:  # any: it is raised before this package is involved
        return error


class Cell(NamedTuple):
    """One combination; what is not given is the default of the loss."""

    loss: str
    normalizer: str | None = None
    targets: str = "one"
    setting: str = "fixed lengths"

    def build(self) -> tuple[Any, TimeSeriesDataSet]:
        """Make the loss and the dataset."""
        row = LOSSES[self.loss]
        others, listed = TARGETS[self.targets]
        chosen = [(row.target, self.loss), *others]
        columns, losses, normalizers = [], [], []
        for column, loss in chosen:
            own = LOSSES[self.loss if loss == "same" else loss]
            column = row.target if column == "same" else column
            if column == row.target and columns:  # a second target of the same kind
                column = {"y": "volume", "count": "whole"}.get(column, f"{column} 2")
            normalizer = natural_normalizer(own)
            if self.targets == "plus a categorical one" and own.transformation is None:
                normalizer = "EncoderNormalizer, none"  # the one that can be combined with labels
            if not columns and self.normalizer is not None:
                normalizer = self.normalizer
                if column == "label":
                    column = "y"  # a normalizer is for a real target
            if NORMALIZERS[normalizer][1] == "logit" and not column.startswith("share"):
                column = "share"
            columns.append(column)
            losses.append(own)
            normalizers.append((normalizer, own.center))
        horizon = SETTINGS[self.setting].get("max_prediction_length", HORIZON)
        dataset = dataset_of(tuple(columns), tuple(normalizers), listed, self.setting)
        if isinstance(dataset, Exception):
            raise UpstreamRejectsError(f"{type(dataset).__name__}: {dataset}") from dataset
        made = [part.make(horizon) for part in losses]
        if self.targets == "two, same loss":
            return made[0], dataset  # one instance for both
        return (MultiLoss(made) if listed else made[0]), dataset


def run(cell: Cell, thoroughly: bool = True) -> str:
    """Run a cell; return ``PASS``, or the error with which it is rejected.

    Parameters
    ----------
    cell : Cell
        What to run.
    thoroughly : bool
        Whether to fit, test, predict in every mode, plot and reload with a Trainer, or only to make
        a step of training and the forecasts.
    """
    torch.manual_seed(0)
    try:
        loss, dataset = cell.build()
    except UpstreamRejectsError as error:
        return f"TimeSeriesDataSet: {error}"
    try:
        model = mLSTMTime.from_dataset(
            dataset, loss=loss, hidden_size=8, num_heads=2, moving_averages=(5, 3)
        )
    except ValueError as error:
        if not str(error).startswith("mLSTMTime: "):
            raise
        return str(error)
    (_check_thoroughly if thoroughly else _check_step)(model, dataset)
    return PASS


def _check_step(model: mLSTMTime, dataset: TimeSeriesDataSet) -> None:
    x, y = next(iter(dataset.to_dataloader(train=False, batch_size=64, num_workers=0)))
    # replace what a step needs of a Trainer, which takes longer to construct than everything else
    with patch.multiple(mLSTMTime, predicting=False, current_stage="train", log=lambda *_, **__: 0):
        loss = model.step(x, y, 0)[0]["loss"]
    assert loss.isfinite()
    loss.backward()
    assert_gradients(model)
    model.eval()
    with torch.no_grad():
        out = model(x)
        points, quantiles = model.to_prediction(out), model.to_quantiles(out)
    lengths, values = x["decoder_lengths"], dataset.data["target"]
    for point, quantile, column in zip(to_list(points), to_list(quantiles), values, strict=True):
        assert_in_scale(point, column, lengths)
        assert quantile.isfinite().all()


class _Gradients(Callback):
    def on_after_backward(self, trainer: Trainer, model: LightningModule) -> None:
        assert_gradients(model)


def assert_gradients(model: LightningModule) -> None:
    """Assert that every weight of the model has an effect on the loss."""
    missing = [
        name
        for name, weight in model.named_parameters()
        # the convex network of MQF2 has weights that only its likelihood uses, not its energy score
        if weight.grad is None and "picnn" not in name
    ]
    assert not missing, f"no gradients of {missing}"
    for name, weight in model.named_parameters():
        assert weight.grad is None or weight.grad.isfinite().all(), name


def assert_in_scale(point: Tensor, values: Tensor, lengths: Tensor) -> None:
    """Assert that forecasts are finite, and at most ten times the range of the data off."""
    valid = torch.arange(point.shape[1]) < lengths[:, None]
    point = point[valid]
    assert point.isfinite().all()
    if point.is_floating_point():  # labels are integers, but counts may be, too
        low, high = values.min().float(), values.max().float()
        margin = 10 * (high - low)
        assert (point > low - margin).all() and (point < high + margin).all(), (
            f"forecasts from {point.min():g} to {point.max():g} for data from {low:g} to {high:g}"
        )
    else:
        assert ((point >= 0) & (point <= values.max())).all()


def _check_thoroughly(model: mLSTMTime, dataset: TimeSeriesDataSet) -> None:
    loader = dataset.to_dataloader(train=False, batch_size=64, num_workers=0)
    trainer = Trainer(
        **QUIET,
        max_epochs=1,
        limit_train_batches=1,
        limit_val_batches=1,
        limit_test_batches=1,
        num_sanity_val_steps=0,
        enable_checkpointing=False,
        callbacks=[_Gradients()],
    )
    training = dataset.to_dataloader(train=True, batch_size=16, num_workers=0)
    trainer.fit(model, training, loader)
    for stage in ("train", "val"):
        assert trainer.callback_metrics[f"{stage}_loss"].isfinite()
    (metrics,) = trainer.test(model, loader, verbose=False)
    assert torch.tensor(metrics["test_loss"]).isfinite()
    assert all(weight.isfinite().all() for weight in model.parameters())

    n, values = len(dataset), dataset.data["target"]
    is_list = isinstance(dataset.target, list)
    # in batches with different longest horizons, if there are any
    loader = dataset.to_dataloader(train=False, batch_size=7, num_workers=0)
    # test_loss_trains_and_predicts_in_all_modes tries the mode "raw" with every loss
    for mode in ("prediction", "quantiles", ("raw", "prediction")):
        result = model.predict(
            loader,
            mode=mode,
            return_x=True,
            return_y=True,
            return_index=True,
            return_decoder_lengths=True,
            trainer_kwargs=dict(QUIET),
        )
        output = result.output
        assert isinstance(output, list) is is_list
        lengths = result.decoder_lengths
        assert len(result.index) == len(lengths) == len(result.x["decoder_lengths"]) == n
        assert len(to_list(result.y[0])) == len(to_list(output)) == len(values)
        valid = torch.arange(int(lengths.max())) < lengths[:, None]
        for part, truth, column in zip(to_list(output), to_list(result.y[0]), values, strict=True):
            assert len(part) == len(truth) == n
            if mode == "prediction":
                assert part.shape == truth.shape
                assert_in_scale(part, column, lengths)
            else:  # the output of MQF2 has no steps
                assert (part[valid] if part.ndim > 2 else part).isfinite().all()

    x, _ = next(iter(loader))
    figures = to_list(model.plot_prediction(x, model.eval()(x), idx=0, add_loss_to_title=True))
    assert all(isinstance(figure, Figure) for figure in figures)
    plt.close("all")

    with tempfile.TemporaryDirectory() as folder:
        trainer.save_checkpoint(Path(folder) / "model.ckpt")
        loaded = mLSTMTime.load_from_checkpoint(Path(folder) / "model.ckpt").eval()
    with torch.no_grad():
        expected, actual = model(x), loaded(x)
        pairs = [
            *zip(to_list(actual.prediction), to_list(expected.prediction), strict=True),
            *zip(loaded.parameters(), model.parameters(), strict=True),
            *zip(
                to_list(seeded(loaded.to_prediction, actual)),
                to_list(seeded(model.to_prediction, expected)),
                strict=True,
            ),
        ]
        for actual_part, expected_part in pairs:
            assert torch.equal(actual_part, expected_part)


def seeded(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function with a fixed seed, since some losses sample their forecasts."""
    torch.manual_seed(1)
    return call(*arguments)


def by_normalizer(loss: str) -> Iterator[Cell]:
    """List the cells of a loss with every normalizer."""
    return (Cell(loss, normalizer) for normalizer in NORMALIZERS)


def by_setting(loss: str) -> Iterator[Cell]:
    """List the cells of a loss with every dataset."""
    return (Cell(loss, setting=setting) for setting in SETTINGS)


def by_targets(loss: str) -> Iterator[Cell]:
    """List the cells of a loss with every set of targets."""
    return (Cell(loss, targets=targets) for targets in TARGETS)


def product_of(loss: str) -> Iterator[Cell]:
    """List the product of a loss with normalizers and datasets, and with targets and datasets."""
    for setting in SETTINGS:
        yield from (Cell(loss, normalizer, setting=setting) for normalizer in NORMALIZERS)
        yield from (Cell(loss, targets=targets, setting=setting) for targets in TARGETS)


def run_quietly(cell: Cell, thoroughly: bool = True) -> str:
    """Run a cell without the unavoidable warnings of pytorch-forecasting."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
        warnings.filterwarnings("ignore", "X does not have valid feature names", UserWarning)
        # scales of a history of one step
        warnings.filterwarnings("ignore", r"std\(\): degrees of freedom is <= 0", UserWarning)
        # plots of a horizon of one step
        warnings.filterwarnings("ignore", r"\*c\* argument looks like a single", UserWarning)
        warnings.filterwarnings("ignore", "__array_wrap__ must accept", DeprecationWarning)
        return run(cell, thoroughly)
