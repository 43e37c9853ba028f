"""Steps that are missing in the data: which row stands in for each of them."""

import torch
from torch import Tensor


def source_of_each_step(
    times: Tensor, first_row: Tensor, last_row: Tensor, *, most_rows: int, steps: int
) -> tuple[Tensor, Tensor]:
    """Find the row that fills each step: the last one that is not later.

    Nothing is expanded beforehand, so that memory does not depend on how sparse the data are:
    each row marks the step it stands at, and counting the marks numbers the rows.

    Parameters
    ----------
    times : Tensor
        time index of every row of the data, shape ``(N,)``
    first_row, last_row : Tensor
        first and last row of each window, shape ``(B, 1)``
    most_rows : int
        number of rows of the longest window
    steps : int
        number of steps to resolve

    Returns
    -------
    source : Tensor
        row relative to ``first_row``, shape ``(B, steps)``
    missing : Tensor
        whether the step is missing in the data, shape ``(B, steps)``

    Examples
    --------
    >>> import torch
    >>> times = torch.tensor([5, 6, 9, 10])
    >>> source_of_each_step(
    ...     times, torch.tensor([[0]]), torch.tensor([[3]]), most_rows=4, steps=6
    ... )
    (tensor([[0, 1, 1, 1, 2, 3]]), tensor([[False, False,  True,  True, False, False]]))
    """
    rows = first_row + torch.arange(most_rows, device=times.device)
    existing = torch.minimum(rows, last_row)
    step = times.index_select(0, existing.flatten()).view_as(existing) - times[first_row]
    # Rows of no concern mark a step past the end.
    step = step.masked_fill(rows > last_row, steps)
    marks = torch.zeros(len(step), steps + 1, dtype=torch.long, device=times.device)
    marks = marks.scatter_add(1, step, torch.ones_like(step))[:, :steps]
    return marks.cumsum(1) - 1, marks == 0
