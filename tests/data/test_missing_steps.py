"""Missing steps, against an independent loop."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytorch_forecasting_mlstm.data.missing_steps import forward_fill_index


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.lists(st.integers(0, 4), max_size=8), min_size=1, max_size=4))
def test_forward_fill_index_is_the_last_row_before_each_step(windows: list[list[int]]) -> None:
    times = [np.cumsum([3, *steps]) for steps in windows]
    ends = np.cumsum([len(rows) for rows in times])
    source, is_missing = forward_fill_index(
        torch.from_numpy(np.concatenate(times)),
        torch.from_numpy(ends - [len(rows) for rows in times]).unsqueeze(1),
        torch.from_numpy(ends - 1).unsqueeze(1),
        max_rows=max(map(len, times)),
        steps=max(int(rows[-1] - rows[0]) + 1 for rows in times),
    )
    for sample, rows in enumerate(times):
        for step in range(int(rows[-1] - rows[0]) + 1):
            time = rows[0] + step
            last_row = max(row for row, row_time in enumerate(rows) if row_time <= time)
            assert source[sample, step] == last_row
            assert is_missing[sample, step] == (time not in rows)
