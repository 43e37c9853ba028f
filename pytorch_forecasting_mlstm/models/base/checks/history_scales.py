"""Covariates that are scaled by the history of each window must vary there."""

from typing import Any

from pytorch_forecasting.data import EncoderNormalizer
from pytorch_forecasting.utils import to_list

from .missing import lag_source
from .nonfinite import format_codes

__all__ = ["check_history_scales"]

#: Scaled values beyond this come from a division by the epsilon that stands for a scale of 0.
_MAX_SCALED = 1e5


def check_history_scales(model: Any, x: dict[str, Any]) -> None:
    """Raise if a covariate has no scale in a history, so that its scaled values are absurd.

    An ``EncoderNormalizer`` divides by 1e-7 where a history is constant: a promotion that begins in
    the horizon would be read as ten million.

    Parameters
    ----------
    model : ForecastingModel
        Model that is going to read the batch.
    x : dict
        Batch of a dataset.

    Raises
    ------
    ValueError
        With variable, series and time of the first such value.
    """
    for name in _scaled_by_history(model):
        column = model.hparams.x_reals.index(name)
        for key in ("encoder_cont", "decoder_cont"):
            values = x[key][..., column]
            absurd = values.abs() > _MAX_SCALED
            if absurd.any():
                sample, step = absurd.nonzero()[0].tolist()
                time = int(x["decoder_time_idx"][sample, 0]) + step
                if key == "encoder_cont":
                    time -= int(x["encoder_lengths"][sample])
                parameters = model.dataset_parameters
                raise ValueError(
                    f"{type(model).__name__}: variable {name!r} must vary in every history, since "
                    f"its EncoderNormalizer scales it by that, got {values[sample, step]:.3g} once "
                    f"scaled for {format_codes(parameters, x['groups'][sample])} at "
                    f"{parameters['time_idx']}={time}; leave {name!r} out of scalers, so that all "
                    f"windows share a scale."
                )


def _scaled_by_history(model: Any) -> list[str]:
    """Return the covariates that the model reads as an ``EncoderNormalizer`` scales them."""
    parameters = getattr(model, "dataset_parameters", None)
    if parameters is None:
        return []
    scaled = {
        name
        for name, scaler in parameters["scalers"].items()
        if isinstance(scaler, EncoderNormalizer) and name not in to_list(model.hparams.target)
    }
    read = {
        *model.hparams.time_varying_reals_encoder,
        *model.hparams.time_varying_reals_decoder,
        *model.hparams.static_reals,
    }
    return [name for name in model.hparams.x_reals if name in read and lag_source(name) in scaled]
