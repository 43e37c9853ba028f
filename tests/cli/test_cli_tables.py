"""Tables of many kinds become tidy forecasts, at the right times, under their own names."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.image import imread

from helpers.tables import daily, noisy_season, stores
from pytorch_forecasting_mlstm.cli.main import main
from pytorch_forecasting_mlstm.forecaster import training
from pytorch_forecasting_mlstm.forecaster.datasets import model_frame
from pytorch_forecasting_mlstm.forecaster.forecast_frame import tidy_forecast
from pytorch_forecasting_mlstm.forecaster.panel import read_table
from pytorch_forecasting_mlstm.forecaster.splits import split_table

QUANTILES = ["q0.02", "q0.1", "q0.25", "q0.5", "q0.75", "q0.9", "q0.98"]
Forecast = Callable[..., pd.DataFrame]


@pytest.fixture
def forecast(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Forecast:
    """Forecast a file for one epoch of two batches, and check what holds for every forecast."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 2)

    def run(file: str, time: str, target: str, horizon: int, *more: str) -> pd.DataFrame:
        argv = [file, "--time", time, "--target", target, "--horizon", str(horizon), *more]
        code = main([*argv, "--epochs", "1"])
        printed = capsys.readouterr()
        assert code == 0, printed.err
        assert printed.err == ""
        assert "coverage of 80 % interval" in printed.out
        groups = [more[k + 1] for k, word in enumerate(more) if word == "--group"]
        names = dict.fromkeys([*groups, time], str)
        result = pd.read_csv("forecast.csv", dtype=names, keep_default_na=False)
        assert list(result.columns) == [*groups, time, "step", "prediction", *QUANTILES]
        steps = result["step"].to_numpy().reshape(-1, horizon)
        assert (steps == np.arange(1, horizon + 1)).all()
        assert np.isfinite(result[QUANTILES]).all(axis=None)
        assert (np.diff(result[QUANTILES]) >= 0).all(), "quantiles do not cross"
        assert result["prediction"].equals(result["q0.5"])
        assert imread("forecast.png").shape[1] == 1620
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
            ["forecast.csv", "forecast.png", file]
        )
        return result

    return run


def series(times: pd.DatetimeIndex, form: str = "%Y-%m-%d") -> pd.DataFrame:
    return pd.DataFrame({"when": times.strftime(form), "sold": noisy_season(len(times))})


@pytest.mark.parametrize(
    ("start", "freq", "form", "first", "last"),
    [
        ("2023-12-30", "D", "%Y-%m-%d", "2024-02-28", "2024-03-01"),
        ("2024-01-01", "2D", "%Y%m%d", "2024-04-30", "2024-05-04"),
        ("2024-01-01", "B", "%Y-%m-%d", "2024-03-25", "2024-03-27"),
        ("2024-01-03", "B", "%d.%m.%Y", "2024-03-27", "2024-03-29"),
        ("2023-01-04", "7D", "%Y-%m-%d", "2024-02-28", "2024-03-13"),
        ("2019-01-31", pd.offsets.MonthEnd(), "%Y-%m-%d", "2024-01-31", "2024-03-31"),
        ("2019-01-01", "MS", "%Y-%m", "2024-01-01", "2024-03-01"),
        ("2019-01-15", pd.DateOffset(months=1), "%Y-%m-%d", "2024-01-15", "2024-03-15"),
        ("2009-01-01", "QS", "%Y-%m-%d", "2024-01-01", "2024-07-01"),
        ("1964-01-01", pd.DateOffset(years=1), "%Y-%m-%d", "2024-01-01", "2026-01-01"),
        ("2024-02-27", "h", "%Y-%m-%dT%H:%M", "2024-02-29 12:00:00", "2024-02-29 14:00:00"),
        (
            "2024-02-28 18:00",
            "30min",
            "%m/%d/%Y %H:%M",
            "2024-03-01 00:00:00",
            "2024-03-01 01:00:00",
        ),
        (
            "2024-02-29 23:00",
            "min",
            "%Y-%m-%d %H:%M:%S",
            "2024-03-01 00:00:00",
            "2024-03-01 00:02:00",
        ),
    ],
)
def test_times_go_on(
    tmp_path: Path, start: str, freq: str | pd.DateOffset, form: str, first: str, last: str
) -> None:
    table = series(pd.date_range(start, periods=60, freq=freq), form)
    assert times_ahead(tmp_path / "t.csv", table, 3) == [first, last]


def times_ahead(path: Path, table: pd.DataFrame, horizon: int) -> list[str]:
    """First and last time of the written forecast of a single series."""
    table.to_csv(path, index=False)
    read = read_table(path, time="when", target="sold", group=(), known=(), horizon=horizon)
    tidy = tidy_forecast(read, np.zeros((1, horizon, len(QUANTILES))))
    tidy.to_csv(path, index=False)
    return pd.read_csv(path, dtype=str)["when"].iloc[[0, -1]].tolist()


def test_offsets_from_utc(tmp_path: Path) -> None:
    """The hour that summer time leaves out is not missing."""
    times = pd.date_range("2024-03-29", periods=72, freq="h", tz="Europe/London")
    table = series(times, "%Y-%m-%d %H:%M:%S%z")
    assert table["when"].str.endswith("+0100").any()
    assert table["when"].str.endswith("+0000").any()
    assert times_ahead(tmp_path / "t.csv", table, 2)[0] == "2024-04-01 00:00:00+00:00"


@pytest.mark.parametrize(("step", "expected"), [(1, ["160", "161"]), (5, ["400", "405"])])
def test_whole_numbers(tmp_path: Path, step: int, expected: list[str]) -> None:
    table = pd.DataFrame({"when": 100 + step * np.arange(60), "sold": noisy_season(60)})
    assert times_ahead(tmp_path / "t.csv", table.sample(frac=1, random_state=0), 2) == expected


FORMULAS = ["=1+1", "+1", "-1", "@x", "\t=2", "'=1+1", "＝1"]


def test_formulas_are_quoted_on_request(forecast: Forecast) -> None:
    table = stores({name: 40 for name in [*FORMULAS, "plain=1"]}).rename(
        columns={"store": "=store"}
    )
    table["sales"] -= 200
    table.to_csv("t.csv", index=False)
    argv = ["t.csv", "--time", "date", "--target", "sales", "--horizon", "3", "--epochs", "1"]
    assert main([*argv, "--group", "=store"]) == 0
    plain = pd.read_csv("forecast.csv")
    assert plain["=store"].drop_duplicates().tolist() == [*FORMULAS, "plain=1"]
    assert main([*argv, "--group", "=store", "--quote-formulas"]) == 0
    quoted = pd.read_csv("forecast.csv")
    names = ["'" + name for name in FORMULAS] + ["plain=1"]
    assert quoted["'=store"].drop_duplicates().tolist() == names
    assert (quoted["prediction"] < 0).all(), "numbers are left alone"
    pd.testing.assert_frame_equal(quoted.drop(columns="'=store"), plain.drop(columns="=store"))


def test_long_names_are_those_of_short_ones(tmp_path: Path) -> None:
    """Names of megabytes, which arrays would give every row room for, stay in their order."""
    found = []
    for mark in ("", "x" * 1000):
        table = stores({f"{mark}{name}": 40 for name in "cab"}).assign(promo=mark + "no")
        table.loc[::5, "promo"] = mark + "yes"
        table.loc[table["date"] > "2024-04-27", "sales"] = np.nan
        table.to_csv(tmp_path / "t.csv", index=False)
        read = read_table(
            tmp_path / "t.csv",
            time="date",
            target="sales",
            group=("store",),
            known=("promo",),
            horizon=3,
        )
        found.append(model_frame(read, split_table(read, 3)).rows)
    for column in ("group_0", "known_0"):
        codes = [frame[column].astype("category").cat.codes for frame in found]
        assert (codes[0] == codes[1]).all()
        assert found[1][column].str.len().max() < 10


def test_groups_keep_their_names_and_order(forecast: Forecast) -> None:
    """Store 010 does not become 10, nor NA missing; lengths and shuffled rows do not matter."""
    table = stores({"010": 80, "9": 45, "NA": 60}).sample(frac=1, random_state=1)
    table["kind of.goods"] = np.where(table["store"] == "9", "1e3", "x")
    table.to_csv("t.csv", index=False)
    result = forecast("t.csv", "date", "sales", 7, "--group", "store", "--group", "kind of.goods")
    order = table["store"].drop_duplicates().tolist()
    assert result["store"].tolist() == np.repeat(order, 7).tolist()
    assert (result["kind of.goods"] == np.where(result["store"] == "9", "1e3", "x")).all()
    for _, own in result.groupby("store"):
        assert own["date"].iloc[[0, -1]].tolist() == ["2024-05-01", "2024-05-07"]
    # Their scales differ little, but they are not one another's forecasts.
    assert result.groupby("store")["prediction"].sum().nunique() == 3


def test_series_that_end_at_different_times(forecast: Forecast) -> None:
    table = stores({"a": 60, "b": 60})
    table = table[(table["store"] == "a") | (table["date"] <= "2024-04-20")]
    table.to_csv("t.csv", index=False)
    result = forecast("t.csv", "date", "sales", 3, "--group", "store")
    assert result["date"].tolist() == [
        *("2024-05-01", "2024-05-02", "2024-05-03"),
        *("2024-04-21", "2024-04-22", "2024-04-23"),
    ]


@pytest.mark.parametrize(
    "sales",
    [
        np.arange(60) % 7,
        np.arange(60) % 7 < 2,
        np.full(60, 3.25),
        1e39 * noisy_season(60),
        1e9 + noisy_season(60),
        -1e-40 * noisy_season(60),
    ],
    ids=["integers", "booleans", "constant", "large", "far from 0", "small"],
)
def test_targets(forecast: Forecast, sales: np.ndarray) -> None:
    daily().assign(sales=sales).to_csv("t.csv", index=False)
    result = forecast("t.csv", "date", "sales", 3)
    values = sales.astype(float)
    spread = np.ptp(values) or np.abs(values).max()
    assert result["prediction"].between(values.min() - spread, values.max() + spread).all()
    if values.min() == 0:
        assert (result[QUANTILES] >= 0).all(axis=None), "amounts are not negative"


def test_parquet_with_times_in_its_index(forecast: Forecast) -> None:
    pytest.importorskip("pyarrow")
    table = stores({"1": 60, "2": 60}).astype({"store": int})
    table["date"] = pd.to_datetime(table["date"])
    table["sales"] = table["sales"].round().astype("Int64")
    table.set_index("date").to_parquet("t.parquet")
    result = forecast("t.parquet", "date", "sales", 3, "--group", "store")
    assert result["store"].tolist() == ["1"] * 3 + ["2"] * 3
    assert result["date"].iloc[0] == "2024-05-01"


def test_semicolons_and_decimal_commas(forecast: Forecast) -> None:
    daily().to_csv("t.csv", index=False)
    expected = forecast("t.csv", "date", "sales", 3)
    daily().to_csv("t.csv", index=False, sep=";", decimal=",", encoding="utf-8-sig")
    pd.testing.assert_frame_equal(forecast("t.csv", "date", "sales", 3), expected)


def test_known_columns_matter(forecast: Forecast) -> None:
    """Numbers, text and booleans; another future of theirs is another forecast."""
    table = stores({"a": 60, "b": 50}).assign(price=1.0, promo="no", open=True)
    table.loc[::5, ["price", "promo", "open"]] = [0.5, "yes", False]
    table.loc[table["date"] > "2024-04-27", "sales"] = np.nan
    known = ["--group", "store", "--known", "price", "--known", "promo", "--known", "open"]
    table.to_csv("t.csv", index=False)
    first = forecast("t.csv", "date", "sales", 3, *known)
    assert first["date"].tolist() == ["2024-04-28", "2024-04-29", "2024-04-30"] * 2
    table.loc[table["sales"].isna(), "price"] = 0.25
    table.to_csv("t.csv", index=False)
    second = forecast("t.csv", "date", "sales", 3, *known)
    assert (first["prediction"] != second["prediction"]).all()
    table.loc[table["sales"].isna(), "promo"] = "never seen before"
    table.to_csv("t.csv", index=False)
    third = forecast("t.csv", "date", "sales", 3, *known)
    assert (second["prediction"] != third["prediction"]).all()


def test_known_values_never_seen_so_far(tmp_path: Path) -> None:
    table = daily(40).assign(promo=["yes", "no"] * 20, price=range(40))
    table.loc[37:, ["sales", "promo"]] = [[np.nan, "no"], [np.nan, "x"], [np.nan, "a"]]
    table.to_csv(tmp_path / "t.csv", index=False)
    read = read_table(
        tmp_path / "t.csv",
        time="date",
        target="sales",
        group=(),
        known=("price", "promo"),
        horizon=3,
    )
    assert read.unseen(3) == ["promo=a", "promo=x"]


def test_seed(forecast: Forecast) -> None:
    """The same seed gives the same forecast, another one another."""
    daily(60).to_csv("t.csv", index=False)
    first = forecast("t.csv", "date", "sales", 3)
    second = forecast("t.csv", "date", "sales", 3)
    pd.testing.assert_frame_equal(first, second)
    third = forecast("t.csv", "date", "sales", 3, "--seed", "1")
    assert (first["prediction"] != third["prediction"]).any()


def test_many_series_are_drawn_in_part(forecast: Forecast) -> None:
    table = stores({f"${k} {'long name ' * 9}": 40 for k in range(8)})
    table.to_csv("t.csv", index=False)
    assert len(forecast("t.csv", "date", "sales", 7, "--group", "store")) == 8 * 7
    assert imread("forecast.png").shape[0] > 900, "two rows of panels"


def test_horizon_and_history_of_one(forecast: Forecast) -> None:
    daily(30).to_csv("t.csv", index=False)
    assert len(forecast("t.csv", "date", "sales", 1, "--history", "1")) == 1


def test_shortest_table(forecast: Forecast) -> None:
    daily(24).to_csv("t.csv", index=False)
    assert len(forecast("t.csv", "date", "sales", 7)) == 7


def test_output_folder_is_made_and_old_files_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(training, "_BATCHES_PER_EPOCH", 1)
    table, folder = tmp_path / "t.csv", tmp_path / "a" / "b"
    daily().to_csv(table, index=False)
    folder.mkdir(parents=True)
    (folder / "forecast.csv").write_text("old")
    argv = [str(table), "--time", "date", "--target", "sales", "--horizon", "3", "--epochs", "2"]
    assert main([*argv, "--history", "9", "--output", str(folder)]) == 0
    printed = capsys.readouterr().out
    assert "t.csv: 60 rows, 1 series, spacing daily; looks back 9 steps" in printed
    assert "epoch   2/2 " in printed
    assert len(pd.read_csv(folder / "forecast.csv")) == 3
    assert sorted(path.name for path in folder.iterdir()) == ["forecast.csv", "forecast.png"]
