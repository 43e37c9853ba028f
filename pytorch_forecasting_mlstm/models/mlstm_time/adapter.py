"""From hyper-parameters and batches of pytorch-forecasting to arguments of the network."""

from typing import Any

from pytorch_forecasting.data import NaNLabelEncoder
from pytorch_forecasting.metrics import DistributionLoss
from pytorch_forecasting.utils import get_embedding_size, to_list

from ..base.checks.missing import is_lag
from ..base.losses.link import link_of, primary_metrics, target_normalizers
from ..base.scales.table import ReferenceScales
from ._network import NetworkInputs
from .missing import MissingInputs
from .submodules import EmbeddingTable
from .targets import TargetSpec

__all__ = [
    "embedding_tables",
    "lagged_targets",
    "missing_inputs",
    "network_inputs",
    "target_specs",
]


def target_specs(
    target: str | list[str] | None,
    output_size: int | list[int],
    embedding_sizes: dict[str, tuple[int, int]],
    loss: Any,
    output_transformer: Any,
) -> list[TargetSpec]:
    """Return what the network has to know of each target.

    Parameters
    ----------
    target, output_size, embedding_sizes, loss
        As in :class:`mLSTMTime`. The embedding of a categorical target defaults to the width that
        pytorch-forecasting would choose.
    output_transformer : TorchNormalizer, NaNLabelEncoder or MultiNormalizer
        Normalizer of the dataset.
    """
    specs = []
    for name, size, metric, normalizer in zip(
        to_list(target),
        to_list(output_size),
        primary_metrics(loss),
        target_normalizers(output_transformer),
        strict=True,
    ):
        spec = TargetSpec(link_of(metric), size)
        if isinstance(normalizer, NaNLabelEncoder):
            classes = len(normalizer.classes_)
            _, width = embedding_sizes.get(name, (classes, get_embedding_size(classes)))
            spec = spec._replace(num_classes=classes, embedding_size=width)
        else:
            spec = spec._replace(
                transform=getattr(normalizer, "preprocess", None),
                is_distribution=isinstance(metric, DistributionLoss),
            )
        specs.append(spec)
    return specs


def embedding_tables(
    variables: set[str],
    embedding_sizes: dict[str, tuple[int, int]],
    x_categoricals: list[str],
    categorical_groups: dict[str, list[str]],
    embedding_paddings: list[str],
) -> dict[str, EmbeddingTable]:
    """Return how to embed each of the categorical variables that are read.

    Parameters
    ----------
    variables : set of str
        Variables that are read; a group of variables goes by the name of the group.
    embedding_sizes, x_categoricals, categorical_groups, embedding_paddings
        As in :class:`mLSTMTime`.
    """
    tables = {}
    for name, (classes, width) in embedding_sizes.items():
        if name in variables:
            members = categorical_groups.get(name, [name])
            tables[name] = EmbeddingTable(
                num_classes=classes,
                size=width,
                columns=[x_categoricals.index(member) for member in members],
                zero_padding=name in embedding_paddings and name not in categorical_groups,
            )
    return tables


def lagged_targets(target: str | list[str] | None, x_reals: list[str]) -> dict[int, int]:
    """Return, for each real column with earlier values of a target, the number of the target.

    >>> lagged_targets(["sold", "price"], ["sold", "day", "price_lagged_by_7", "sold_lagged_by_1"])
    {3: 0, 2: 1}
    """
    return {
        column: number
        for number, name in enumerate(to_list(target))
        for column, real in enumerate(x_reals)
        if real.startswith(f"{name}_lagged_by_")
    }


def missing_inputs(hparams: Any) -> MissingInputs:
    """Return which inputs may be missing.

    Parameters
    ----------
    hparams : AttributeDict
        Hyper-parameters of :class:`mLSTMTime`.
    """
    targets, marked = to_list(hparams.target), hparams.missing_values

    def columns(names: list[str]) -> list[int]:
        return [hparams.x_reals.index(name) for name in names]

    history = [name for name in hparams.time_varying_reals_encoder if name not in targets]
    horizon = hparams.time_varying_reals_decoder
    return MissingInputs(
        targets=[number for number, name in enumerate(targets) if name in marked],
        history_reals=columns([name for name in history if name in marked]),
        horizon_reals=columns([name for name in horizon if name in marked]),
        lags=columns([name for name in horizon if is_lag(name)]),
    )


def network_inputs(x: dict[str, Any], reference_scales: list[ReferenceScales]) -> NetworkInputs:
    """Return the tensors of a batch that the network reads.

    Parameters
    ----------
    x : dict
        Batch of a :class:`~pytorch_forecasting.TimeSeriesDataSet`.
    reference_scales : list of ReferenceScales
        For each target, what :meth:`ForecastingModel.reference_scales` returns.
    """
    return NetworkInputs(
        target_histories=to_list(x["encoder_target"]),
        target_scales=to_list(x["target_scale"]),
        reference_scales=reference_scales,
        history_lengths=x["encoder_lengths"],
        horizon_lengths=x["decoder_lengths"],
        history_reals=x["encoder_cont"],
        horizon_reals=x["decoder_cont"],
        history_categoricals=x["encoder_cat"],
        horizon_categoricals=x["decoder_cat"],
    )
