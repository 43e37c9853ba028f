"""Compare the statistics of two datasets: scalers, target normalizers and fill values."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pytorch_forecasting.data import EncoderNormalizer, GroupNormalizer, NaNLabelEncoder
from pytorch_forecasting.utils import to_list

from ..losses.link import target_normalizers

__all__ = ["Difference", "compare_scalers", "compare_series", "compare_targets", "describe"]

#: Share of a number, or of the scale beside it, by which two fits to the same data may differ.
_TOLERANCE = 1e-5
#: Fitted attributes of scikit-learn that do not change what a scaler does.
_IGNORED = {"n_samples_seen_", "n_features_in_", "feature_names_in_", "fitted_"}


class Difference(NamedTuple):
    """A number or a setting in which two datasets differ."""

    name: str
    what: str
    expected: Any
    got: Any


def describe(differences: list[Difference], limit: int = 3) -> str:
    """Format differences for a message.

    >>> describe([Difference("variable 'price'", "mean_", 1.5, 80.25)])
    "variable 'price' with mean_ 1.5, got 80.25"
    """
    parts = [
        f"{name} with {what} {_format(expected)}, got {_format(got)}"
        for name, what, expected, got in differences[:limit]
    ]
    more = len(differences) - limit
    return "; ".join(parts) + (f" (and {more} more differences)" if more > 0 else "")


def compare_scalers(expected: dict[str, Any], got: dict[str, Any]) -> list[Difference]:
    """Compare how two datasets scale their covariates and fill their gaps.

    Parameters
    ----------
    expected, got : dict
        ``get_parameters()`` of the datasets.
    """
    differences: list[Difference] = []
    for name, scaler in expected["scalers"].items():
        if name in got["scalers"]:
            other = got["scalers"][name]
            differences += _compare(f"variable {name!r}", scaler, other, expected, got)
    fills = expected["constant_fill_strategy"] or {}, got["constant_fill_strategy"] or {}
    if expected["allow_missing_timesteps"] and got["allow_missing_timesteps"]:
        for name in sorted({*fills[0], *fills[1]}):
            values = [part.get(name) for part in fills]
            if not _equal_settings(*values):
                differences.append(
                    Difference(f"variable {name!r}", "constant_fill_strategy", *values)
                )
    return differences


def compare_targets(expected: dict[str, Any], got: dict[str, Any]) -> list[Difference]:
    """Compare how two datasets normalize their targets.

    Parameters
    ----------
    expected, got : dict
        ``get_parameters()`` of the datasets, which have the same targets.
    """
    normalizers = [target_normalizers(part["target_normalizer"]) for part in (expected, got)]
    return [
        difference
        for name, first, second in zip(to_list(expected["target"]), *normalizers, strict=True)
        for difference in _compare(f"target {name!r}", first, second, expected, got)
    ]


def compare_series(expected: dict[str, Any], got: dict[str, Any]) -> list[Difference]:
    """Compare which codes two datasets have for the same series.

    The codes lead to the scales of series, see :class:`~..scales.table.ScaleTable`.

    Parameters
    ----------
    expected, got : dict
        ``get_parameters()`` of the datasets, which have the same groups.
    """
    differences: list[Difference] = []
    for name in to_list(expected["group_ids"]):
        first, second = (
            part["categorical_encoders"][f"__group_id__{name}"].classes_ for part in (expected, got)
        )
        moved = (label for label in first if second.get(label, first[label]) != first[label])
        differences += [
            Difference(f"group {name}={label!r}", "code", first[label], second[label])
            for label in moved
        ]
    return differences


def _compare(
    name: str, first: Any, second: Any, expected: dict[str, Any], got: dict[str, Any]
) -> Iterator[Difference]:
    """Yield the differences of two scalers, None, or normalizers."""
    if first is second or isinstance(first, NaNLabelEncoder):
        return  # labels are compared elsewhere
    kinds = [type(part).__name__ if part is not None else None for part in (first, second)]
    if kinds[0] != kinds[1]:
        yield Difference(name, "scaler", *kinds)
        return
    if first is None:
        return
    settings = [part.get_params(deep=False) for part in (first, second)]
    for key, value in settings[0].items():
        if _is_plain(value) and not _equal_settings(value, settings[1].get(key)):
            yield Difference(name, key, value, settings[1].get(key))
            return
    if isinstance(first, EncoderNormalizer):
        return  # it has no statistics: every window has its own
    if isinstance(first, GroupNormalizer):
        yield from _compare_groups(name, first, second, expected, got)
        return
    fitted = [
        {
            key: value
            for key, value in vars(part).items()
            if key.endswith("_") and not key.startswith("_") and key not in _IGNORED
        }
        for part in (first, second)
    ]
    scales = [np.abs(_numbers(part.get("scale_", 0.0))) for part in fitted]
    scale = max((float(part.max()) for part in scales if part.size), default=0.0)
    for key, value in fitted[0].items():
        numbers = _numbers(value), _numbers(fitted[1].get(key))
        if numbers[0].size and not _close(*numbers, scale):
            yield _first_difference(name, key, *numbers)
            return  # the others follow from it


def _compare_groups(
    name: str, first: Any, second: Any, expected: dict[str, Any], got: dict[str, Any]
) -> Iterator[Difference]:
    """Yield the differences of two tables of scales by group; a group of one only is fine."""
    groups = first._groups
    if not groups:
        norms = [pd.DataFrame([part.norm_]) for part in (first, second)]
        tables = [(name, norms)]
    elif first.scale_by_group:
        tables = [
            (
                name,
                [_by_label(part.norm_[group], [group], parameters) for part, parameters in pairs],
            )
            for group in groups
            for pairs in [((first, expected), (second, got))]
        ]
    else:
        pairs = (first, expected), (second, got)
        tables = [(name, [_by_label(part.norm_, groups, parameters) for part, parameters in pairs])]
    for label, (left, right) in tables:
        common = left.index.intersection(right.index)
        if not len(common):
            continue
        left, right = left.loc[common], right.loc[common]
        scale = float(max(left["scale"].abs().max(), right["scale"].abs().max()))
        for column in ("center", "scale"):
            values = left[column].to_numpy(float), right[column].to_numpy(float)
            if not _close(*values, scale):
                worst = int(np.nanargmax(np.abs(values[0] - values[1])))
                where = f" of {common[worst]!r}" if groups else ""
                yield Difference(label, f"{column}{where}", values[0][worst], values[1][worst])
                break


def _by_label(norm: pd.DataFrame, groups: list[str], parameters: dict[str, Any]) -> pd.DataFrame:
    """Index a table of scales by labels: two datasets may encode them differently."""
    labels = []
    for level, group in enumerate(groups):
        encoder = parameters["categorical_encoders"].get(group)
        classes = {code: label for label, code in getattr(encoder, "classes_", {}).items()}
        labels.append([classes.get(code, code) for code in norm.index.get_level_values(level)])
    index = labels[0] if len(labels) == 1 else list(zip(*labels, strict=True))
    return norm.set_axis(pd.Index(index, tupleize_cols=False), axis=0)


def _first_difference(name: str, key: str, first: np.ndarray, second: np.ndarray) -> Difference:
    if first.shape != second.shape:
        return Difference(name, f"{key}, numbers", first.size, second.size)
    worst = int(np.argmax(np.abs(first - second)))
    return Difference(name, key, float(first.flat[worst]), float(second.flat[worst]))


def _numbers(value: Any) -> np.ndarray:
    """Return the numbers of a fitted attribute, or nothing if it has none."""
    try:
        return np.atleast_1d(np.asarray(value, dtype=float))
    except (TypeError, ValueError):
        return np.zeros(0)


def _close(first: np.ndarray, second: np.ndarray, scale: float) -> bool:
    if first.shape != second.shape:
        return False
    return bool(
        np.allclose(first, second, rtol=_TOLERANCE, atol=_TOLERANCE * scale, equal_nan=True)
    )


def _is_plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(map(_is_plain, value.values()))
    return isinstance(value, str | int | float | bool | np.number | None)


def _equal_settings(first: Any, second: Any) -> bool:
    if isinstance(first, float) and isinstance(second, float) and first != first:
        return second != second  # NaN
    if isinstance(first, list | tuple) and isinstance(second, list | tuple):
        return list(first) == list(second)
    return bool(first == second)


def _format(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float | np.floating) else repr(value)
