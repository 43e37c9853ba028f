"""Find the row of the data that fills each step of a window with missing steps."""

import torch
from torch import Tensor


def forward_fill_index(
    times: Tensor, first_row: Tensor, last_row: Tensor, *, max_rows: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Find the row that fills each step: the last row that is not later than the step.

    Each row marks its step, and the running count of the marks gives the row of each step. The data
    are never expanded, so the memory needed does not depend on how sparse they are.

    Parameters
    ----------
    times : Tensor
        Time index of every row of the data, shape ``(N,)``.
    first_row, last_row : Tensor
        First and last row of each window, shape ``(B, 1)``.
    max_rows : int
        Number of rows of the longest window.
    steps : int
        Number of steps to resolve.

    Returns
    -------
    source : Tensor
        Row relative to ``first_row``, shape ``(B, steps)``.
    missing : Tensor
        Whether the data lack the step, shape ``(B, steps)``.

    Examples
    --------
    >>> import torch
    >>> times = torch.tensor([5, 6, 9, 10])
    >>> forward_fill_index(times, torch.tensor([[0]]), torch.tensor([[3]]), max_rows=4, steps=6)
    (tensor([[0, 1, 1, 1, 2, 3]]), tensor([[False, False,  True,  True, False, False]]))
    """
    rows = first_row + torch.arange(max_rows, device=times.device)
    in_window = torch.minimum(rows, last_row)
    step = times.index_select(0, in_window.flatten()).view_as(in_window) - times[first_row]
    # Rows after the window mark a step past the end, which is cut off.
    step = step.masked_fill(rows > last_row, steps)
    marks = torch.zeros(len(step), steps + 1, dtype=torch.long, device=times.device)
    marks = marks.scatter_add(1, step, torch.ones_like(step))[:, :steps]
    return marks.cumsum(1) - 1, marks == 0
