"""Go on training with new rows or new series."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace

import pandas as pd

from ...data import BatchedTimeSeriesDataSet
from ...models.base.scales.measure import adopt_scales
from ..panel.panel import Panel
from ..tables.groups import merge_groups
from .datasets import rows_to_learn
from .fitted import Fitted
from .fitting import OnProgress, Settings, member_name, without_callbacks
from .seeds import member_seed, seeded
from .train import EpochResult, train

UPDATE_EPOCHS = 5
_LEARNING_RATE_SHARE = 0.2  # of that of a new training


def update_fit(
    fitted: Fitted,
    known_groups: pd.DataFrame,
    panel: Panel,
    settings: Settings,
    epochs: int,
    on_progress: OnProgress | None = None,
) -> tuple[Fitted, pd.DataFrame]:
    """Go on training the models; the linear forecast stays as it is.

    Encoders, scalers, the scales of known series, the effects of the calendar, the calibration and
    the history stay as they are.
    New series get scales of their own; classes that training has never seen are all one class.

    Parameters
    ----------
    fitted : Fitted
        The models. They stay as they are.
    known_groups : pandas.DataFrame
        Its series.
    panel : Panel
        All rows, the new ones among them.
    settings : Settings
        What the user chose.
    epochs : int
        Epochs to train.
    on_progress : callable, optional
        Called after each epoch.

    Returns
    -------
    fitted : Fitted
        The new models.
    groups : pandas.DataFrame
        Its series: the known ones, then the new ones.
    """
    groups, numbers = merge_groups(known_groups, panel.groups)
    here = fitted.scaling.match(panel, numbers)
    is_new = numbers >= len(known_groups)
    scaling = fitted.scaling.append(here, is_new)
    end = int(panel.lengths.max())
    frame = fitted.layout.frame(here.without_effects(panel), here, numbers, end)
    rows = rows_to_learn(frame, end, fitted.dataset.min_encoder_length + settings.horizon)
    dataset = BatchedTimeSeriesDataSet.from_dataset(fitted.dataset, rows)
    recipe = replace(
        settings.recipe,
        epochs=epochs,
        learning_rate=_LEARNING_RATE_SHARE * settings.recipe.learning_rate,
    )

    def report(result: EpochResult) -> None:
        if on_progress is not None:
            on_progress(name, result)

    models = []
    for number, model in enumerate(fitted.models):
        name = member_name("update", number, len(fitted.models))
        seed = member_seed(settings.seed, number)
        with seeded(seed):
            result = train(
                dataset,
                None,
                recipe,
                settings.quantiles,
                seed=seed,
                trainer_kwargs=without_callbacks(settings.trainer_kwargs),
                on_epoch=report,
                model=deepcopy(model),
            )
        if result.interrupted:
            raise KeyboardInterrupt
        models.append(result.model)
    linear = deepcopy(fitted.linear)
    if linear is not None:
        adopt_scales(linear, dataset)
    lower = fitted.lower_bound
    if settings.minimum == "auto" and panel.lower_bound < lower:
        lower = panel.lower_bound
    updated = replace(
        fitted,
        models=tuple(models),
        linear=linear,
        dataset=dataset,
        scaling=scaling,
        lower_bound=lower,
    )
    return updated, groups
