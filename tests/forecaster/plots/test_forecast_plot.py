"""Plots of forecasts and backtests: what is drawn, in which words, without overlap."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.backtests import backtest_of, history_and_forecast
from helpers.products import alternate
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.plots.drawing import format_number
from pytorch_forecasting_mlstm.forecaster.plots.forecast_plot import plot_forecast

DAYS = pd.date_range("2024-01-01", periods=60, freq="D")
HOURS = pd.date_range("2024-03-29", periods=100, freq="h", tz="Europe/Berlin")


def stores(count: int) -> list[dict[str, Any]]:
    return [{"store": f"store {number}"} for number in range(count)]


def plot(times: Any = DAYS, horizon: int = 7, *, truth: bool = False, **options: Any) -> Any:
    keys = options.pop("keys", [{}])
    levels = options.pop("levels", (0.1, 0.25, 0.5, 0.75, 0.9))
    history, forecast, actual = history_and_forecast(times, horizon, keys=keys, levels=levels)
    return plot_forecast(
        history,
        forecast,
        time="time",
        target="sales",
        group=list(keys[0]),
        actual=actual if truth else None,
        **options,
    )


def lines(axes: Any) -> dict[str, Any]:
    return {line.get_label(): line for line in axes.lines}


def legend(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_plot_forecast_draws_history_forecast_bands_and_truth() -> None:
    history, forecast, actual = history_and_forecast(DAYS, 7)
    figure = plot(truth=True)
    (axes,) = figure.axes
    drawn = lines(axes)
    assert np.array_equal(drawn["history"].get_ydata(), history["sales"].iloc[-14:])
    assert np.array_equal(drawn["forecast (median)"].get_ydata(), forecast["prediction"])
    assert np.array_equal(drawn["actual"].get_ydata(), actual["sales"])
    assert np.array_equal(drawn["actual"].get_xdata(), drawn["forecast (median)"].get_xdata())
    pairs = (("q0.1", "q0.9"), ("q0.25", "q0.75"))
    for band, (low, high) in zip(axes.collections, pairs, strict=True):
        edges = band.get_paths()[0].vertices[:, 1]
        assert edges.min() == forecast[low].min() and edges.max() == forecast[high].max()
    assert legend(figure) == [
        "history",
        "actual",
        "80 % interval",
        "50 % interval",
        "forecast (median)",
    ]
    assert figure.get_suptitle() == "Forecast of sales, 7 steps ahead"
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time", "sales")


def test_truth_in_the_history_is_not_drawn_as_history() -> None:
    history, forecast, actual = history_and_forecast(DAYS, 7)
    later = pd.concat([history, actual]).sample(frac=1, random_state=0)  # in any order
    figure = plot_forecast(later, forecast, time="time", target="sales")
    drawn = lines(figure.axes[0])
    assert np.array_equal(drawn["history"].get_ydata(), history["sales"].iloc[-14:])
    assert np.array_equal(drawn["actual"].get_ydata(), actual["sales"])
    unknown = pd.concat([history, actual.assign(sales=np.nan)])
    figure = plot_forecast(unknown, forecast, time="time", target="sales")
    assert "actual" not in legend(figure)


def test_missing_history_is_a_gap_and_single_values_are_dots() -> None:
    history, forecast, _ = history_and_forecast(DAYS, 7)
    history.iloc[[-3, -1], history.columns.get_loc("sales")] = np.nan
    figure = plot_forecast(history, forecast, time="time", target="sales")
    axes = figure.axes[0]
    assert np.isnan(lines(axes)["history"].get_ydata()).sum() == 2
    (dot,) = (line for line in axes.lines if line.get_marker() == "o")
    assert dot.get_ydata().tolist() == [history["sales"].iloc[-2]]


def test_other_quantiles_and_means_are_named() -> None:
    history, forecast, _ = history_and_forecast(DAYS, 7, levels=(0.2, 0.5, 0.7, 0.8))
    forecast["prediction"] += 0.1  # a mean
    figure = plot_forecast(history, forecast, time="time", target="sales")
    assert legend(figure) == ["history", "60 % interval", "70 % quantile", "forecast"]
    assert legend(plot(levels=())) == ["history", "forecast"]


def test_one_step_is_visible() -> None:
    figure = plot(horizon=1, truth=True)
    (axes,) = figure.axes
    drawn = lines(axes)
    assert drawn["forecast (median)"].get_marker() == "o"
    time = drawn["forecast (median)"].get_xdata()[0]
    for band in axes.collections:
        edges = band.get_paths()[0].vertices[:, 0]
        assert edges.min() < time < edges.max() < axes.get_xlim()[1]
    assert figure.get_suptitle() == "Forecast of sales, 1 step ahead"


def test_first_six_series_are_drawn_and_counted() -> None:
    figure = plot(keys=stores(9))
    assert [axes.get_title("left") for axes in figure.axes] == [
        f"store=store {k}" for k in range(6)
    ]
    assert figure.get_suptitle().endswith(", first 6 of 9 series")
    assert "series" not in plot(keys=stores(4)).get_suptitle()


def test_chosen_series_are_drawn() -> None:
    keys = [{"store": store, "item": item} for store in "ab" for item in (1, 2)]
    for series in (("b", 2), [("b", 2)], [["b", np.int64(2)]]):
        figure = plot(keys=keys, series=series)
        assert [axes.get_title("left") for axes in figure.axes] == ["store=b, item=2"]
        assert figure.get_suptitle().endswith(", 1 of 4 series")
    figure = plot(keys=stores(9), series=["store 8", "store 0"])
    assert [axes.get_title("left") for axes in figure.axes] == ["store=store 8", "store=store 0"]
    assert plot(keys=stores(9), series="store 8").axes[0].get_title("left") == "store=store 8"


@pytest.mark.parametrize(
    ("keys", "series", "message"),
    [
        (stores(2), "store 7", "no series 'store 7' .* choose series from 'store 0', 'store 1'"),
        (stores(2), [], "0 series to draw: choose between 1 and 60"),
        (stores(61), [f"store {k}" for k in range(61)], "61 series to draw"),
        ([{}], "store 1", "series is 'store 1', but there is one series only"),
    ],
)
def test_series_that_cannot_be_drawn(keys: Any, series: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        plot(keys=keys, series=series)


def test_empty_forecasts_are_refused() -> None:
    history, forecast, _ = history_and_forecast(DAYS, 7)
    with pytest.raises(InputError, match="no forecast to draw"):
        plot_forecast(history, forecast.iloc[:0], time="time", target="sales")


def test_several_targets_have_panels_of_their_own() -> None:
    history, forecast, actual = history_and_forecast(DAYS, 7)
    wide = history.assign(visits=2 * history["sales"])
    long = pd.concat([forecast.assign(target="sales"), forecast.assign(target="visits")])
    figure = plot_forecast(wide, long, time="time", target=["sales", "visits"])
    assert [axes.get_title("left") for axes in figure.axes] == ["target=sales", "target=visits"]
    last = [lines(axes)["history"].get_ydata()[-1] for axes in figure.axes]
    assert last == [history["sales"].iloc[-1], 2 * history["sales"].iloc[-1]]
    assert figure.get_suptitle() == "Forecast of sales and visits, 7 steps ahead"


def test_dollar_signs_start_no_formula() -> None:
    history, forecast, _ = history_and_forecast(DAYS, 7, keys=[{"US$": "$a$"}])
    names = {"sales": "price ($) or $x", "time": "$t$"}
    figure = plot_forecast(
        history.rename(columns=names),
        forecast.rename(columns=names),
        time="$t$",
        target="price ($) or $x",
        group=["US$"],
    )
    (axes,) = figure.axes
    for text in (
        axes.get_xlabel(),
        axes.get_ylabel(),
        axes.get_title("left"),
        figure.get_suptitle(),
    ):
        assert r"\$" in text and "$" not in text.replace(r"\$", "")


@pytest.mark.parametrize("value", [1e-9, 1e-4, 3e4, 5e6, 2e11, 1e300])
@pytest.mark.parametrize("spread", [1e-6, 0.1, 2.0])
def test_ticks_of_values_differ(value: float, spread: float) -> None:
    step = value * spread / 5
    ticks = value + step * np.arange(-5, 6)
    labels = [format_number(tick, step, np.abs(ticks).max()) for tick in ticks]
    assert len(set(labels)) == 11
    for tick, label in zip(ticks, labels, strict=True):
        # a tick of matplotlib has few digits; these have many, which rounding cuts
        assert float(label.replace(",", "")) == pytest.approx(tick, abs=0.51 * step)


def texts(figure: Any) -> list[Any]:
    """Return all visible texts of a drawn figure, without the ticks outside of the axes."""
    found = [figure._suptitle, *figure.legends[0].get_texts()]
    for axes in figure.axes:
        if axes.get_visible():
            first, last = sorted(axes.get_xlim())
            found += [axes.xaxis.label, axes.yaxis.label, axes._left_title]
            found += [axes.xaxis.get_offset_text(), axes.yaxis.get_offset_text()]
            found += [t for t in axes.get_xticklabels() if first <= t.get_position()[0] <= last]
            low, high = sorted(axes.get_ylim())
            found += [t for t in axes.get_yticklabels() if low <= t.get_position()[1] <= high]
    return [text for text in found if text.get_text() and text.get_visible()]


LONG = [
    {"a very long $group$ column": f"a store in US$ with a long name {k}", "item": 7}
    for k in range(6)
]
LAYOUTS = {
    "hours of six": (HOURS, 24, stores(6)),
    "long names": (DAYS, 14, LONG),
    "weeks of six": ([f"2024-W{week:02d}" for week in range(1, 50)], 9, stores(6)),
    "quarters of four": (pd.period_range("2010Q1", periods=40, freq="Q"), 8, stores(4)),
    "long integers": (range(10**15, 10**15 + 60), 7, stores(5)),
    "months": ([f"{y}-{m:02d}" for y in range(2015, 2024) for m in range(1, 13)], 12, stores(2)),
}


@alternate("layout", LAYOUTS, first=1)
def test_texts_do_not_overlap(layout: str) -> None:
    times, horizon, keys = LAYOUTS[layout]
    figure = plot(times, horizon, keys=keys, truth=True, levels=(0.02, 0.1, 0.25, 0.75, 0.9, 0.98))
    figure.draw_without_rendering()
    boxes = [(text.get_text(), text.get_window_extent()) for text in texts(figure)]
    width, height = figure.canvas.get_width_height()
    for k, (text, box) in enumerate(boxes):
        assert -1 <= box.x0 and box.x1 <= width + 1 and -1 <= box.y0 and box.y1 <= height + 1, text
        for other, second in boxes[:k]:
            assert not box.padded(-1).overlaps(second), (text, other)


def test_plot_backtest_draws_all_cutoffs() -> None:
    result = backtest_of(DAYS, 5, [40, 45, 50])
    figure = result.plot()
    (axes,) = figure.axes
    forecasts = [line for line in axes.lines if line.get_label() == "forecast (median)"]
    assert [len(line.get_xdata()) for line in forecasts] == [5, 5, 5]
    truth = lines(axes)["actual"]
    assert len(truth.get_xdata()) == 16, "joined with the last value of the history"
    assert np.array_equal(truth.get_ydata(), result.history["sales"].iloc[39:55])
    assert legend(figure)[:2] == ["history", "actual"] and "SeasonalNaive" in legend(figure)
    assert lines(axes)["SeasonalNaive"].get_linestyle() == "--"
    assert figure.get_suptitle() == "Backtest of sales, 3 cutoffs"


def test_plot_backtest_tells_overlapping_forecasts_apart() -> None:
    figure = backtest_of(DAYS, 10, [36, 40, 44]).plot()
    (axes,) = figure.axes
    days = ["2024-02-05", "2024-02-09", "2024-02-13"]
    colors = {lines(axes)[f"forecast after {day}"].get_color() for day in days}
    assert len(colors) == 3
    assert len(axes.collections) == 3, "one band for each"


def test_plot_backtest_of_chosen_cutoffs_and_series() -> None:
    result = backtest_of(DAYS, 5, range(20, 50, 5), keys=stores(3))
    assert result.plot().get_suptitle() == "Backtest of sales, 4 of 6 cutoffs"
    figure = result.plot(series="store 2", cutoffs=1)
    assert figure.get_suptitle() == "Backtest of sales, 1 of 6 cutoffs, 1 of 3 series"
    ahead = lines(figure.axes[0])["forecast (median)"].get_ydata()
    expected = result.forecasts.query("store == 'store 2' and model == 'mLSTMTime'")
    assert np.array_equal(ahead, expected["prediction"].iloc[-5:])
    chosen = list(DAYS[[19, 29]])
    assert result.plot(cutoffs=chosen).get_suptitle() == "Backtest of sales, 2 of 6 cutoffs"
    with pytest.raises(InputError, match="no cutoff '2024-03-01': choose cutoffs from 2024-01-20"):
        result.plot(cutoffs=[pd.Timestamp("2024-03-01")])
    with pytest.raises(InputError, match="cutoffs must be at least 1, got 0"):
        result.plot(cutoffs=0)


@pytest.mark.parametrize(
    "times",
    [
        list(range(60)),
        [f"{2019 + k // 12}-{k % 12 + 1:02d}" for k in range(60)],
        pd.period_range("2019-01", periods=60, freq="M"),
        pd.date_range("2024-03-30", periods=60, freq="h", tz="Europe/Berlin"),
    ],
    ids=["integers", "months", "periods", "zone"],
)
def test_plot_backtest_in_the_times_of_the_user(times: Any) -> None:
    figure = backtest_of(times, 4, [40, 42], keys=stores(2)).plot()
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert len(axes.collections) == 2


def test_plot_backtest_without_truth_or_quantiles() -> None:
    result = backtest_of(DAYS, 1, [58, 59], levels=())
    result.forecasts["actual"] = np.nan
    result.history.loc[58:, "sales"] = np.nan
    figure = result.plot()
    figure.draw_without_rendering()
    assert legend(figure) == ["history", "forecast", "SeasonalNaive"]


def test_series_with_cutoffs_of_their_own() -> None:
    early, late = (backtest_of(DAYS, 5, cutoffs) for cutoffs in ([20, 23], [40, 43]))
    tables = [
        pd.concat([getattr(early, name).assign(store="a"), getattr(late, name).assign(store="b")])
        for name in ("forecasts", "history", "scales")
    ]
    result = type(early)(*tables, "time", "sales", ("store",))
    figure = result.plot()
    assert figure.get_suptitle() == "Backtest of sales, 2 cutoffs"
    assert {"forecast after cutoff 1", "forecast after cutoff 2"} <= set(legend(figure))
    with pytest.raises(InputError, match="store=b has no forecast from these cutoffs"):
        result.plot(cutoffs=[DAYS[19]])
