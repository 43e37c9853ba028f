"""Panels of extreme times, whose memory depends on the number of rows alone."""

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from helpers.tables import daily, read_panel
from helpers.times import (
    FAR,
    HORIZON,
    INT,
    business_days,
    iso,
    months,
    read_times_panel,
    times_ahead,
    write_times,
)
from pytorch_forecasting_mlstm.cli.plots import _times
from pytorch_forecasting_mlstm.cli.report import _period
from pytorch_forecasting_mlstm.forecaster.datasets import model_frame
from pytorch_forecasting_mlstm.forecaster.errors import InputError
from pytorch_forecasting_mlstm.forecaster.splits import split_panel


def comparable(time: str) -> Any:
    return int(time) if time.isdecimal() else np.datetime64(time)


@pytest.mark.parametrize("kind", FAR)
def test_make_panel_of_distant_series_takes_memory_for_rows(tmp_path: Path, kind: str) -> None:
    """A list of the times between the series would take gigabytes.

    The forecast of every series starts after its last time.
    """
    first, second = (list(map(str, times)) for times in FAR[kind])
    path = write_times(tmp_path / "t.csv", {"a": first[:-HORIZON], "b": second[:-HORIZON]})
    read_times_panel(write_times(tmp_path / "u.csv", {"a": first[:-HORIZON]}))
    tracemalloc.start()
    try:
        panel = read_times_panel(path)
        split = split_panel(panel, HORIZON)
        frame = model_frame(panel, split)
        assert len(_period(panel, split)) < 60
        _times(panel, int(panel.starts[1]) + len(panel.values[1]), 12, HORIZON)
        ahead = times_ahead(panel)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 10 * 2**20
    for times, expected in zip(ahead, (first, second), strict=True):
        assert list(map(comparable, times)) == list(map(comparable, expected[-HORIZON:]))
    expected_rows = model_frame(read_times_panel(tmp_path / "u.csv"), split).rows
    rows = frame.rows[frame.rows["series"] == "0"].reset_index(drop=True)
    columns = [name for name in expected_rows if name != "group_0"]
    pd.testing.assert_frame_equal(rows[columns], expected_rows[columns])


@pytest.mark.parametrize(
    ("times", "ahead"),
    [
        (iso("2262-03-03", 40, 1, "D"), ["2262-04-12", "2262-04-14"]),
        (iso("2262-04-11T23:17", 30, 1, "m"), ["2262-04-11 23:47:00", "2262-04-11 23:49:00"]),
        (iso("1677-09-01", 40, 1, "D"), ["1677-10-11", "1677-10-13"]),
        (iso("9999-11-19", 40, 1, "D"), ["9999-12-29", "9999-12-31"]),
        (months(9996, 45), ["9999-10-01", "9999-12-01"]),
        (iso("0001-01-01", 40, 1, "D"), ["0001-02-10T00:00:00", "0001-02-12T00:00:00"]),
        (range(INT.max - 42, INT.max - 2), [str(INT.max - 2), str(INT.max)]),
        (range(INT.min, INT.min + 40), [str(INT.min + 40), str(INT.min + 42)]),
        (range(INT.min, INT.min + 60 * 2**58, 2**58), [str(INT.min + k * 2**58) for k in (60, 62)]),
    ],
    ids=str,
)
def test_make_panel_times_continue_up_to_the_limit(
    tmp_path: Path, times: Any, ahead: list[str]
) -> None:
    panel = read_times_panel(write_times(tmp_path / "t.csv", {"a": times}))
    model_frame(panel, split_panel(panel, HORIZON))
    assert times_ahead(panel)[0][:: HORIZON - 1] == ahead


@pytest.mark.parametrize(
    ("times", "message"),
    [
        (
            {"a": iso("9999-11-20", 40, 1, "D")},
            "beyond 9999-12-31 23:59:59.999999, the",
        ),
        ({"a": months(9996, 46)}, "beyond 9999-12-31"),
        ({"a": business_days("9999-11-02", 43)}, "beyond 9999-12-31"),
        ({"a": iso("9999-12-31T00:01", 1438, 1, "m")}, "beyond 9999-12-31"),
        ({"a": range(INT.max - 41, INT.max - 1)}, f"beyond {INT.max}, the last possible time"),
        ({"a": [INT.min, INT.max]}, f"beyond {INT.max}"),
        (
            {"a": range(INT.min, INT.min + 40), "b": range(INT.max - 90, INT.max - 50)},
            "the times are too far apart to be counted",
        ),
        ({"a": range(2**63, 2**63 + 40)}, "'9223372036854775808' in row 1 does not fit into 64"),
        ({"a": range(-(2**63) - 1, 0, 2**58)}, "'-9223372036854775809' in row 1 does not fit"),
        ({"a": ["9" * 10_000] * 40}, "cannot read '999"),
        ({"a": ["1:11" * 50_000] * 40}, "cannot read '1:11"),
        ({"a": ["2024-01-01 " + "1:11:" * 50_000] * 40}, "cannot read '2024-01-01 1:11"),
        ({"a": iso("0000-01-01", 40, 1, "D")}, "row 1 is not between the years 1 and 9999"),
        ({"a": iso("9999-12-20", 40, 1, "D")}, "as a date or whole number: write dates"),
        (
            {"a": iso("1700-01-01", 40, 1, "m") + iso("2200-01-01", 40, 1, "m")},
            "no common step",
        ),
        ({"a": ["2024-01-01 00:00 Europe"] * 40}, "cannot read '2024-01-01 00:00 Europe'"),
        ({"a": ["2024-01-01 00:00+99:99"] * 40}, "cannot read '2024-01-01 00:00+99:99'"),
    ],
    ids=range(17),
)
def test_make_panel_rejects_times_out_of_range(tmp_path: Path, times: Any, message: str) -> None:
    path = write_times(tmp_path / "t.csv", times)
    with pytest.raises(InputError) as error:
        read_times_panel(path)
    assert message in str(error.value)
    assert len(str(error.value)) < 400


def test_panel_lists_unseen_categories(tmp_path: Path) -> None:
    table = daily(40).assign(promo=["yes", "no"] * 20, price=range(40))
    table.loc[37:, ["sales", "promo"]] = [[np.nan, "no"], [np.nan, "x"], [np.nan, "a"]]
    table.to_csv(tmp_path / "t.csv", index=False)
    panel = read_panel(
        tmp_path / "t.csv",
        time="date",
        target="sales",
        group=(),
        known=("price", "promo"),
        horizon=3,
    )
    assert panel.unseen_categories(3) == ["promo=a", "promo=x"]
