"""The validation part is the end of every series, and no window reaches beyond it."""

import numpy as np
import pandas as pd
import pytest

from helpers.forecasters import panel_from, panel_of_values, rich_stores
from pytorch_forecasting_mlstm.forecaster import InputError
from pytorch_forecasting_mlstm.forecaster.training.datasets import training_set, validation_set
from pytorch_forecasting_mlstm.forecaster.training.history import (
    candidate_histories,
    choose_history,
)
from pytorch_forecasting_mlstm.forecaster.training.layout import Layout, _short
from pytorch_forecasting_mlstm.forecaster.training.scaling import Scaling
from pytorch_forecasting_mlstm.forecaster.training.splits import split_panel


@pytest.mark.parametrize("lengths", [(60,), (500, 40), (30, 30, 3, 1), (12, 200, 200)])
@pytest.mark.parametrize("horizon", [1, 3, 7])
def test_parts_follow_one_another(lengths: tuple[int, ...], horizon: int) -> None:
    panel = panel_of_values(*(np.arange(float(length)) for length in lengths))
    split = split_panel(panel, horizon)
    assert split.end == max(lengths)
    assert split.has_validation and split.end - split.validation >= horizon
    # One late series does not shrink the part for all: it is a tenth of the typical series.
    long_enough = [length for length in lengths if length >= 2 + 2 * horizon]
    assert split.end - split.validation == max(horizon, int(0.1 * np.median(long_enough)))
    assert split.origins[-1] == split.end - horizon and split.origins[0] >= split.validation
    assert 1 <= split.min_history <= split.history == split.longest_history
    shorter = split.with_history(panel, 2)
    assert shorter.history == min(2, split.longest_history)
    assert split.with_history(panel, 10**6).history == split.longest_history


def test_many_windows_are_thinned_out() -> None:
    split = split_panel(panel_of_values(*[np.arange(200.0)] * 300), 2)
    assert len(split.origins) * 300 <= 1300
    assert split.origins[-1] == 198


@pytest.mark.parametrize("length", [1, 2, 4, 5, 7])
def test_short_series_train_without_validation_or_are_refused(length: int) -> None:
    panel = panel_of_values(np.arange(float(length)))
    if length < 5:
        with pytest.raises(InputError, match=f"{length} row.*too short for horizon 3.*needs 5"):
            split_panel(panel, 3)
    else:
        split = split_panel(panel, 3)
        assert not split.has_validation and split.validation == split.end == length


def datasets(panel, history=5):  # noqa: ANN001, ANN201
    split = split_panel(panel, 3).with_history(panel, history)
    layout = Layout.fit(panel, split.validation)
    scaling = Scaling.fit(panel, split.end - split.validation)
    frame = layout.frame(panel, scaling, np.arange(len(panel)), split.end)
    training = training_set(frame, layout, split, split.validation)
    return split, frame, training, validation_set(training, frame, split.origins, split.horizon)


def test_windows_cover_each_part_once_and_training_ends_before_validation() -> None:
    panel = panel_of_values(np.arange(40.0), np.arange(25.0), np.arange(6.0), [1.0])
    split, frame, training, validation = datasets(panel)
    assert training.data["time"].max() == split.validation - 1
    index = validation.decoded_index
    assert sorted(set(index["time_idx_first_prediction"])) == split.origins.tolist()
    windows = index.groupby("series").size()
    # One window per origin, of series with a history before it.
    assert windows["0"] == windows["1"] == len(split.origins)
    assert "3" not in windows
    # The longest history possible.
    long = index[index["series"] == "0"]
    assert (long["time_idx_first_prediction"] - long["time_idx_first"] == split.history).all()
    # The end of every series is at the same index, whatever its length.
    assert frame.groupby("series")["time_idx"].max().eq(split.end - 1).all()


def test_no_window_for_validation_is_no_error() -> None:
    panel = panel_of_values(np.arange(20.0))
    split, frame, training, _ = datasets(panel)
    assert validation_set(training, frame, np.array([0]), 3) is None


def test_scalers_and_classes_are_those_of_the_training_part() -> None:
    table = rich_stores(40).assign(sky="clear", rain=1.0)
    table.loc[table["date"] > "2024-02-06", "sky"] = "storm"
    table.loc[::2, "rain"] = 3.0
    table.loc[table["date"] > "2024-02-06", "rain"] = 1e6
    panel = panel_from(table, group="store", past=["rain", "sky"])
    training = datasets(panel)[2]
    parameters = training.get_parameters()
    classes = parameters["categorical_encoders"]["sky"].classes_
    assert set(classes) == {"nan", "clear"}
    assert parameters["scalers"]["rain"].mean_[0] == pytest.approx(2, abs=0.1)


def test_names_that_pytorch_forecasting_refuses_are_replaced_and_stay_apart() -> None:
    names = ["a.b", "a_b", "time_idx", "series", "weight", "encoder_length", "sales_scale", ""]
    table = rich_stores(12).assign(**{name: 1.5 for name in names})
    layout = Layout.fit(panel_from(table, group="store", past=names), 10)
    used = [layout.names[name] for name in names]
    assert len(set(used)) == len(names)
    assert not any("." in name or not name for name in used)
    assert not {"time_idx", "series", "weight", "encoder_length", "sales_scale"} & set(used)
    assert layout.names["a_b"] in ("a_b", "a_b_")


def test_long_classes_are_shortened_and_stay_apart() -> None:
    first, second = _short("x" * 5000 + "a"), _short("x" * 5000 + "b")
    assert first != second and len(first) <= 100
    assert _short("short") == "short"


def test_candidate_histories_grow_and_fit() -> None:
    for length, horizon in ((30, 3), (400, 7), (3000, 48), (9, 2)):
        panel = panel_of_values(np.arange(float(length)))
        split = split_panel(panel, horizon)
        candidates = candidate_histories(panel, split)
        assert candidates == sorted(set(candidates))
        assert 1 <= candidates[0] and candidates[-1] <= split.longest_history
        if length > 100:  # from two weeks, or two horizons
            assert candidates[0] == max(14, min(2 * horizon, 96))
            assert 1.5 * candidates[-1] >= min(8 * candidates[0], 120)
            assert 3.5 * candidates[-1] > 3 * horizon
            assert all(b / a > 1.5 for a, b in zip(candidates, candidates[1:], strict=False))


def test_shortest_of_nearly_equal_histories_is_chosen() -> None:
    nan, inf = float("nan"), float("inf")
    assert choose_history({4: 1.0, 14: 0.995, 28: 0.5}) == 28
    assert choose_history({4: 1.0, 14: 0.995, 28: 1.5}) == 4
    assert choose_history({4: nan, 14: 3.0, 28: inf}) == 14
    assert choose_history({4: nan, 14: nan}) == 4


def test_dates_without_rows_do_not_move_the_calendar() -> None:
    """The same day has the same features in every series."""
    panel = panel_of_values(np.arange(40.0), np.arange(22.0))
    _, frame, _, _ = datasets(panel)
    names = [name for name in frame if name.startswith("week")]
    parts = [part.reset_index(drop=True) for _, part in frame.groupby("series")]
    pd.testing.assert_frame_equal(parts[0][names].iloc[18:].reset_index(drop=True), parts[1][names])
    assert names
