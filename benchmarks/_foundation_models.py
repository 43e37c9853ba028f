"""TiRex-2, Chronos-2 and TimesFM 3 behind one interface: histories in, quantiles out.

None of their packages is needed by this project. Each is imported when its model is loaded:

- Chronos-2: ``pip install chronos-forecasting``
- TiRex-2: ``pip install tirex-2`` (Python 3.11 or later)
- TimesFM 3: ``pip install 'timesfm[torch]'``. Its weights may not be used commercially.

Weights are a name on Hugging Face, from where the packages download them, or a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from _forecast_scores import LEVELS


class Window(NamedTuple):
    """What is known of one series when it is forecast.

    Attributes
    ----------
    target : numpy.ndarray
        (T,): the history; NaN where it is missing.
    past : numpy.ndarray
        (P, T): covariates that are known up to the end of the history.
    known : numpy.ndarray
        (K, T + h): covariates that are known over the horizon, too.
    """

    target: np.ndarray
    past: np.ndarray
    known: np.ndarray


#: Maps windows and a horizon h to their quantiles at `LEVELS`, (windows, h, levels).
Forecast = Callable[[Sequence[Window], int], np.ndarray]


class Foundation(NamedTuple):
    """A foundation model.

    Attributes
    ----------
    load : callable
        Makes a `Forecast` of weights, a device and a batch size.
    weights : str
        The published weights.
    module : str
        What must be installed.
    package : str
        What pip calls it.
    """

    load: Callable[[str, str, int], Forecast]
    weights: str
    module: str
    package: str


def load_chronos(weights: str, device: str, batch_size: int) -> Forecast:
    """Load Chronos-2."""
    pipeline = import_module("chronos").Chronos2Pipeline.from_pretrained(weights, device_map=device)

    def forecast(windows: Sequence[Window], horizon: int) -> np.ndarray:
        inputs = [_as_dictionary(window) for window in windows]
        quantiles, _ = pipeline.predict_quantiles(
            inputs,
            prediction_length=horizon,
            quantile_levels=list(LEVELS),
            batch_size=batch_size,
        )
        return np.stack([series[0].float().cpu().numpy() for series in quantiles])

    return forecast


def _as_dictionary(window: Window) -> dict[str, Any]:
    """Return the input of Chronos-2, in which known covariates are named twice."""
    steps = len(window.target)
    past = {f"past{number}": values for number, values in enumerate(window.past)}
    known = {f"known{number}": values for number, values in enumerate(window.known)}
    return {
        "target": window.target,
        "past_covariates": past | {name: values[:steps] for name, values in known.items()},
        "future_covariates": {name: values[steps:] for name, values in known.items()},
    }


def load_tirex(weights: str, device: str, batch_size: int) -> Forecast:
    """Load TiRex-2."""
    package = import_module("tirex2")
    model = package.load_model(weights, device=device)
    places = _places([round(float(level), 6) for level in model.quantiles], "TiRex-2")

    def forecast(windows: Sequence[Window], horizon: int) -> np.ndarray:
        series = [
            package.TimeseriesType(
                target=_tensor(window.target[None]),
                past_covariates=_tensor(window.past) if len(window.past) else None,
                future_covariates=_tensor(window.known) if len(window.known) else None,
            )
            for window in windows
        ]
        quantiles = model.forecast(
            series, prediction_length=horizon, output_type="numpy", batch_size=batch_size
        )
        return np.stack([one[0, places].T for one in quantiles])

    return forecast


def load_timesfm(weights: str, device: str, batch_size: int) -> Forecast:
    """Load TimesFM 3, with the settings of its authors for benchmarks."""
    package = import_module("timesfm3")
    config = package.ModelConfig(
        checkpoint_path=weights, per_core_batch_size=batch_size, device=device
    )
    model = package.TimesFM3Evaluator(config)
    places = _places([round(float(level), 6) for level in model.config.quantiles], "TimesFM 3")

    def forecast(windows: Sequence[Window], horizon: int) -> np.ndarray:
        outputs = model.predict_batch(
            [window.target for window in windows],
            horizon=horizon,
            past_only_covariates=[w.past if len(w.past) else None for w in windows],
            past_future_covariates=[w.known if len(w.known) else None for w in windows],
            return_quantiles=True,
        )
        return np.stack(
            [np.asarray(output.quantiles).reshape(horizon, -1)[:, places] for output in outputs]
        )

    return forecast


def _tensor(values: np.ndarray) -> torch.Tensor:
    return torch.as_tensor(np.ascontiguousarray(values), dtype=torch.float32)


def _places(levels: Sequence[float], model: str) -> list[int]:
    """Return where each of `LEVELS` is among the levels of a model."""
    missing = [level for level in LEVELS if level not in levels]
    if missing:
        raise ValueError(f"{model}: the weights must forecast the levels {LEVELS}, got {levels}")
    return [list(levels).index(level) for level in LEVELS]


FOUNDATION_MODELS = {
    "chronos-2": Foundation(load_chronos, "amazon/chronos-2", "chronos", "chronos-forecasting"),
    "tirex-2": Foundation(load_tirex, "NX-AI/TiRex-2", "tirex2", "tirex-2"),
    "timesfm-3": Foundation(
        load_timesfm, "google/timesfm-3.0-pytorch", "timesfm3", "timesfm[torch]"
    ),
}
