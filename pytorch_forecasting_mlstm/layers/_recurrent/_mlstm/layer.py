"""The mLSTM layer: a stack of cells, computed a whole sequence at a time."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...._validation import check_bool, check_int, check_tensor
from .cell import mLSTMCell
from .functional import mlstm_chunkwise, mlstm_read_weights, mLSTMState
from .input_check import check_input, check_state_tuple
from .ops.autograd import gated, gated_compiled
from .ops.chunks import default_chunk_size
from .ops.dispatch import select_gated
from .ops.execution import is_compiling, is_eager, is_eager_on_cpu
from .ops.overflow import raise_on_overflow
from .ops.tiling import batch_tile_size
from .preactivations import apply_gate_activations, heads_first

__all__ = ["mLSTMLayer"]


class mLSTMLayer(nn.Module):
    """A stack of mLSTM cells over a whole sequence, called like :class:`torch.nn.LSTM`.

    The results are those of stepping the cells through time, computed with matrix products instead
    of a loop::

        u_0 = x                u_{l+1} = h_l + u_l   (l ≥ 1, with residual_conn; else h_l)
        h_l = cell_l over the steps of u_l           output = u_{num_layers}

    Parameters
    ----------
    input_size : int
        Width of the input.
    hidden_size : int
        Width of the hidden states and of the output, H.
    num_layers : int, default 1
        Number of stacked cells.
    dropout : float, default 0.2
        Probability of dropout on the input and the hidden state of every cell.
    layer_norm : bool, default True
        Layer normalization inside the cells, see :class:`mLSTMCell`.
    residual_conn : bool, default True
        Add the input of every cell but the first to its hidden state. The returned states are those
        of the cells, before this addition.
    num_heads : int or None, default 4
        Heads of every cell, each with a full matrix memory; ``None`` for memories of 1×1, see
        :class:`mLSTMCell`.
    batch_first : bool, default False
        Whether x, mask and output are (B, T, …) instead of (T, B, …). States are not affected.

    Attributes
    ----------
    cells : nn.ModuleList
        The cells, first to last.

    Raises
    ------
    TypeError, ValueError
        As :class:`mLSTMCell`, and if ``num_layers`` is below 1.

    Examples
    --------
    >>> import torch
    >>> from pytorch_forecasting_mlstm import mLSTMLayer
    >>> layer = mLSTMLayer(input_size=3, hidden_size=8, num_layers=2)
    >>> output, (h, c, n) = layer(torch.randn(50, 4, 3))  # 50 steps, batch of 4
    >>> output.shape, h.shape, c.shape
    (torch.Size([50, 4, 8]), torch.Size([2, 4, 8]), torch.Size([2, 4, 4, 2, 2]))
    >>> more, state = layer(torch.randn(10, 4, 3), (h, c, n))  # continues from the last state
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        dropout: float = 0.2,
        layer_norm: bool = True,
        residual_conn: bool = True,
        *,
        num_heads: int | None = 4,
        batch_first: bool = False,
    ) -> None:
        super().__init__()
        check_int("mLSTMLayer", "num_layers", num_layers)
        check_bool("mLSTMLayer", "residual_conn", residual_conn)
        check_bool("mLSTMLayer", "batch_first", batch_first)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.residual_conn = residual_conn
        self.batch_first = batch_first
        cells = (
            mLSTMCell(
                input_size if i == 0 else hidden_size,
                hidden_size,
                dropout,
                layer_norm,
                num_heads=num_heads,
            )
            for i in range(num_layers)
        )
        # A ModuleList, annotated as a sequence because type checkers only see modules in it.
        self.cells: Sequence[mLSTMCell] = nn.ModuleList(cells)  # type: ignore[assignment]

    def extra_repr(self) -> str:
        """Arguments as printed by ``repr``, without those of the cells."""
        return f"residual_conn={self.residual_conn}, batch_first={self.batch_first}"

    def init_hidden(
        self, batch_size: int, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the empty state of all cells.

        Parameters
        ----------
        batch_size : int
            Batch, B.
        device : torch.device or str, optional
            Default: the device of the weights.

        Returns
        -------
        h, c, n : Tensor
            Zeros, stacked over the cells, in the shapes of ``state`` in :meth:`forward`.

        Raises
        ------
        TypeError, ValueError
            If ``batch_size`` is not an int of at least 0.
        """
        h, c, n = zip(*(cell.init_hidden(batch_size, device) for cell in self.cells), strict=True)
        return torch.stack(h), torch.stack(c), torch.stack(n)

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, Tensor, Tensor] | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Run a sequence.

        Parameters
        ----------
        x : Tensor
            Input, (T, B, input_size), or (B, T, input_size) with ``batch_first``.
        state : tuple of Tensor, optional
            h, c and n to start from, stacked over the cells: h and n (num_layers, B, H), c
            (num_layers, B, H) or with heads (num_layers, B, NH, H/NH, H/NH). Default: the empty
            state.
        mask : Tensor, optional
            Valid steps, bool, (T, B), or (B, T) with ``batch_first``. An invalid step leaves the
            state unchanged, whatever x contains there, and its output is 0. Default: all steps are
            valid.

        Returns
        -------
        output : Tensor
            Output of the last cell at every step, (T, B, H), or (B, T, H) with ``batch_first``.
        state : tuple of Tensor
            h, c and n after the last valid step.

        Raises
        ------
        TypeError, ValueError
            If a tensor has an unexpected shape, dtype or device, or finite inputs are so large that
            their products overflow (on the CPU; elsewhere the output is inf or NaN).
        """
        x, mask = self._check(x, mask)
        h, c, n = self._initial_state(state, x.shape[1])
        if x.shape[0] == 0:
            output = x.new_zeros(0, x.shape[1], self.hidden_size)
            return output.transpose(0, 1) if self.batch_first else output, (h, c, n)

        c_first, n_first = c, n
        tile_size = self._tile_size(x)
        if tile_size is not None:
            inputs = (x, h, c, n) if mask is None else (x, h, c, n, mask)
            tiles = zip(*(part.split(tile_size, dim=1) for part in inputs), strict=True)
            results = zip(*(self._run(*tile) for tile in tiles), strict=True)
            output, h, c, n = (torch.cat(parts, dim=1) for parts in results)
        else:
            output, h, c, n = self._run(x, h, c, n, mask)
        raise_on_overflow(
            "mLSTMLayer", (output, c, n), lambda: self._named_inputs(x, mask, c_first, n_first)
        )
        return output.transpose(0, 1) if self.batch_first else output, (h, c, n)

    def _named_inputs(
        self, x: Tensor, mask: Tensor | None, c: Tensor, n: Tensor
    ) -> dict[str, Tensor]:
        """Return everything that the output depends on."""
        x = x if mask is None else x.masked_fill(~mask[..., None], 0)
        return {"x": x, "state c": c, "state n": n, **dict(self.named_parameters())}

    def _tile_size(self, x: Tensor) -> int | None:
        """Return how many samples of x (T, B, input) to compute at once; None for all."""
        if not is_eager_on_cpu(x):
            return None
        cell, (T, B) = self.cells[0], x.shape[:2]
        backend = select_gated(x, cell.head_dim)
        L = default_chunk_size(T, cell.head_dim)
        width = backend.gated_tile_width(cell.projection.out_features, cell.heads, L)
        tile_size = batch_tile_size(x, B, T * width)
        return tile_size if tile_size < B else None

    def _run(
        self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the stack over x (T, B, input); return the output, and the last h, c and n."""
        u = x.transpose(0, 1)  # batch first, as the recurrence reads it
        padding = None
        if mask is not None:
            padding = ~mask.T[..., None]
            u = u.masked_fill(padding, 0)
        last = []
        for i, cell in enumerate(self.cells):
            hidden, memory, normalizer = _run_cell(cell, u, c[i], n[i], padding)
            last.append((_last_valid(hidden, h[i], mask), memory, normalizer))
            # States are float32 or wider, the next projection expects the dtype of the input.
            hidden = hidden.to(x.dtype)
            u = hidden + u if self.residual_conn and i > 0 else hidden
        h, c, n = (torch.stack(parts) for parts in zip(*last, strict=True))
        u = u if padding is None else u.masked_fill(padding, 0)
        return u.transpose(0, 1), h, c, n

    def read_weights(self, x: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Return how much each step reads from every other, and how much every step forgets.

        The layer starts from an empty state, without dropout. Time and memory grow with T².

        Parameters
        ----------
        x, mask : Tensor
            As in :meth:`forward`.

        Returns
        -------
        weights : Tensor
            Read weights of :func:`mlstm_read_weights`, (num_layers, B, NH, T, T): first the step
            that reads, then the step that is read. Those of invalid steps are 0.
        log_f : Tensor
            Logarithm of the forget gates, (num_layers, B, NH, T), 0 at invalid steps.

        Raises
        ------
        TypeError, ValueError
            If a tensor has an unexpected shape, dtype or device, or finite inputs are so large that
            their products overflow (on the CPU; elsewhere the weights are inf or NaN).

        Examples
        --------
        >>> layer = mLSTMLayer(input_size=3, hidden_size=8)
        >>> weights, log_f = layer.read_weights(torch.randn(50, 4, 3))
        >>> weights.shape, log_f.shape
        (torch.Size([1, 4, 4, 50, 50]), torch.Size([1, 4, 4, 50]))
        """
        x, mask = self._check(x, mask)
        u, padding = x.transpose(0, 1), None
        if mask is not None:
            padding = ~mask.T[..., None]
            u = u.masked_fill(padding, 0)
        weights, forgets = [], []
        for i, cell in enumerate(self.cells):
            q, k, v, log_i, log_f, o = heads_first(cell.project(u.contiguous()), padding)
            read = mlstm_read_weights(q, k, log_i, log_f)
            # A non-finite value must not affect earlier steps, which give it a weight of 0.
            values = read @ v.nan_to_num(0.0, 0.0, 0.0) + (v - v).cumsum(-2)
            hidden = (o * values).transpose(1, 2).flatten(-2).to(x.dtype)
            u = hidden + u if self.residual_conn and i > 0 else hidden
            if padding is not None:
                read = read.masked_fill(padding[:, None], 0.0)
            weights.append(read)
            forgets.append(log_f)
        return torch.stack(weights), torch.stack(forgets)

    def _check(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Check x and mask; return them with time first."""
        dims = ("batch", "time") if self.batch_first else ("time", "batch")
        check_input("mLSTMLayer", x, dims, self.input_size, self.cells[0].projection.weight)
        if mask is not None:
            check_tensor(
                "mLSTMLayer", "mask", mask, tuple(x.shape[:2]), dtype=torch.bool, device=x.device
            )
        if self.batch_first:
            x = x.transpose(0, 1)
            mask = None if mask is None else mask.transpose(0, 1)
        return x, mask

    def _initial_state(
        self, state: tuple[Tensor, Tensor, Tensor] | None, batch_size: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        if state is None:
            return self.init_hidden(batch_size)
        check_state_tuple("mLSTMLayer", state)
        cell = self.cells[0]
        unit = (self.num_layers, batch_size, self.hidden_size)
        shapes = (unit, (self.num_layers, *cell.memory_shape(batch_size)), unit)
        for name, x, shape in zip(("h", "c", "n"), state, shapes, strict=True):
            check_tensor(
                "mLSTMLayer",
                f"state {name}",
                x,
                shape,
                dtype=cell.state_dtype,
                device=cell.projection.weight.device,
            )
        h, c, n = state
        return h, c, n


def _run_cell(
    cell: mLSTMCell, x: Tensor, c: Tensor, n: Tensor, padding: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Run one cell over x (B, T, input), and return its h at every step and its last c and n."""
    x = cell.dropout(x.contiguous())
    h, state = _recurrence(cell, x, cell.to_state(c, n), padding)
    return cell.dropout(h), *cell.from_state(state)


def _recurrence(
    cell: mLSTMCell, x: Tensor, state: mLSTMState, padding: Tensor | None
) -> tuple[Tensor, mLSTMState]:
    """Return the gated h (B, T, H), and the last state."""
    if is_eager() and x.numel() > 0:
        p, norms = cell.project_unnormalized(x)
        return gated(p, state, padding, norms)
    p = cell.preactivations(x)
    if is_compiling() and x.numel() > 0:
        return gated_compiled(p, state, padding)
    q, k, v, log_i, log_f, o = heads_first(apply_gate_activations(p, cell.heads), padding)
    h, state = mlstm_chunkwise(q, k, v, log_i, log_f, state)
    return (o * h).transpose(1, 2).flatten(-2), state


def _last_valid(hidden: Tensor, before: Tensor, mask: Tensor | None) -> Tensor:
    """Select the last valid step of hidden (B, T, H), or ``before`` if there is none."""
    if mask is None:
        return hidden[:, -1]
    T, B = mask.shape
    steps = torch.arange(1, T + 1, device=mask.device)[:, None]
    last = (mask * steps).amax(0)  # counted from 1, 0 for none
    selected = hidden[torch.arange(B, device=mask.device), (last - 1).clamp_min(0)]
    return torch.where((last > 0)[:, None], selected, before)
