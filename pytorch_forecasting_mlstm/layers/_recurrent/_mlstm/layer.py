"""The mLSTM layer: a stack of cells, computed a whole sequence at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from ...._arguments import suggest_arguments
from ...._validation import check_bool, check_int
from .argument_hints import LAYER_HINTS
from .cell import mLSTMCell
from .functional import mlstm_read_weights
from .ops.chunks import default_chunk_size
from .ops.dispatch import select_gated
from .ops.execution import is_eager_on_cpu
from .ops.overflow import raise_on_overflow
from .ops.tiling import batch_tile_size
from .preactivations import heads_first
from .run_cell import run_cell, select_cell_backend
from .sequence import State, check_layer_input, check_layer_state

__all__ = ["mLSTMLayer"]


class mLSTMLayer(nn.Module):
    """A stack of mLSTM cells over a whole sequence, called like :class:`torch.nn.LSTM`.

    The results are those of stepping the cells through time, computed with matrix products instead
    of a loop::

        u_0 = x                u_{l+1} = h_l + u_l   (l ≥ 1, with residual_conn; else h_l)
        h_l = cell_l over the steps of u_l           output = u_{num_layers}

    With ``bidirectional``, a second cell of each layer runs over u_l from its last step to its
    first, and h_l has the outputs of both cells side by side.

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
    bidirectional : bool, default False
        Whether every layer also runs backwards in time. The output then has 2 H units, those of
        the forward cell first, and states are stacked as layer 0 forward, layer 0 backward, layer 1
        forward, and so on. D is 2 with ``bidirectional``, else 1.
    norm_heads : bool, default False
        Normalize the read-out of every head, see :class:`mLSTMCell`.

    Attributes
    ----------
    cells : nn.ModuleList
        The cells that run forwards, first to last layer.
    reverse_cells : nn.ModuleList
        The cells that run backwards; empty unless ``bidirectional``.

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

    Sequences of different lengths, in both directions:

    >>> layer = mLSTMLayer(input_size=3, hidden_size=8, bidirectional=True, batch_first=True)
    >>> output, (h, c, n) = layer(torch.randn(2, 50, 3), lengths=[50, 20])
    >>> output.shape, h.shape
    (torch.Size([2, 50, 16]), torch.Size([2, 2, 8]))
    """

    @suggest_arguments(LAYER_HINTS)
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
        bidirectional: bool = False,
        norm_heads: bool = False,
    ) -> None:
        super().__init__()
        check_int("mLSTMLayer", "num_layers", num_layers)
        check_bool("mLSTMLayer", "residual_conn", residual_conn)
        check_bool("mLSTMLayer", "batch_first", batch_first)
        check_bool("mLSTMLayer", "bidirectional", bidirectional)
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.residual_conn = residual_conn
        self.batch_first = batch_first
        self.bidirectional = bidirectional
        self.num_directions = 2 if bidirectional else 1

        def make_cells() -> nn.ModuleList:
            return nn.ModuleList(
                mLSTMCell(
                    input_size if i == 0 else self.num_directions * hidden_size,
                    hidden_size,
                    dropout,
                    layer_norm,
                    num_heads=num_heads,
                    norm_heads=norm_heads,
                )
                for i in range(num_layers)
            )

        # A ModuleList, annotated as a sequence because type checkers only see modules in it.
        self.cells: Sequence[mLSTMCell] = make_cells()  # type: ignore[assignment]
        self.reverse_cells: Sequence[mLSTMCell] = (
            make_cells() if bidirectional else nn.ModuleList()  # type: ignore[assignment]
        )

    def extra_repr(self) -> str:
        """Arguments as printed by ``repr``, without those of the cells."""
        return (
            f"residual_conn={self.residual_conn}, batch_first={self.batch_first}, "
            f"bidirectional={self.bidirectional}"
        )

    def init_hidden(self, batch_size: int, device: torch.device | str | None = None) -> State:
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
        cells = (*self.cells, *self.reverse_cells)
        h, c, n = zip(*(cell.init_hidden(batch_size, device) for cell in cells), strict=True)
        return torch.stack(h), torch.stack(c), torch.stack(n)

    def forward(
        self,
        x: Tensor,
        state: State | None = None,
        mask: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, State]:
        """Run a sequence.

        Parameters
        ----------
        x : Tensor
            Input, (T, B, input_size), or (B, T, input_size) with ``batch_first``, or one sequence
            (T, input_size). The output and all states of one sequence have no batch dimension.
        state : tuple of Tensor, optional
            h, c and n to start from, stacked over the cells: h and n (D num_layers, B, H), c
            (D num_layers, B, H) or with heads (D num_layers, B, NH, H/NH, H/NH). Default: the empty
            state.
        mask : Tensor, optional
            Valid steps, bool, (T, B), or (B, T) with ``batch_first``, or (T). An invalid step
            leaves the state unchanged, whatever x contains there, and its output is 0. Default: all
            steps are valid.
        lengths : Tensor or list of int, optional
            Instead of a mask, the number of valid steps of each sample, (B). The others follow
            them. A backward cell starts at the last valid step.

        Returns
        -------
        output : Tensor
            Output of the last layer at every step, (T, B, D H), or (B, T, D H) with
            ``batch_first``.
        state : tuple of Tensor
            h, c and n after the last valid step; of a backward cell, after the first one.

        Raises
        ------
        TypeError, ValueError
            If a tensor has an unexpected shape, dtype or device, lengths are not from 0 to T (if
            they are on the CPU), or finite inputs are so large that their products overflow (on the
            CPU; elsewhere the output is inf or NaN).
        """
        given = check_layer_input(self.cells[0], x, mask, lengths, self.batch_first)
        x, mask = given.x, given.mask
        T, B = x.shape[:2]
        if mask is not None and is_eager_on_cpu(mask) and bool(mask.all()):
            mask = None  # which spares several passes over the sequence
        if state is None:
            h, c, n = self.init_hidden(B)
        else:
            cells = self.num_directions * self.num_layers
            h, c, n = check_layer_state(self.cells[0], state, cells, B, given.batched)
        if T == 0:
            output = x.new_zeros(0, B, self.num_directions * self.hidden_size)
        else:
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
        output, h, c, n = given.unbatch(output, h, c, n, dim=1)
        transposed = self.batch_first and given.batched
        return output.transpose(0, 1) if transposed else output, (h, c, n)

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
        if select_cell_backend(cell, x.transpose(0, 1)) is not None:
            return None  # it takes sample by sample
        backend = select_gated(x, cell.head_dim)
        L = default_chunk_size(T, cell.head_dim)
        width = backend.gated_tile_width(cell.projection.out_features, cell.heads, L)
        tile_size = batch_tile_size(x, B, T * width)
        return tile_size if tile_size < B else None

    def _run(
        self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Run the stack over x (T, B, input); return the output, and the last h, c and n."""
        last: list[State] = []

        def run(cell: mLSTMCell, u: Tensor, padding: Tensor | None) -> Tensor:
            number = len(last)
            hidden, state = run_cell(cell, u, (h[number], c[number], n[number]), padding)
            last.append(state)
            return hidden

        u = self._run_stack(run, x, mask)
        h_last, c_last, n_last = (torch.stack(parts) for parts in zip(*last, strict=True))
        return u.transpose(0, 1), h_last, c_last, n_last

    def _run_stack(
        self,
        run: Callable[[mLSTMCell, Tensor, Tensor | None], Tensor],
        x: Tensor,
        mask: Tensor | None,
    ) -> Tensor:
        """Return the output (B, T, D H) for x (T, B, input).

        ``run(cell, u, padding)`` returns h (B, T, H) of a cell for u (B, T, …) and padding
        (B, T, 1). It is called in the order of the states, with time reversed for backward cells.
        """
        u, padding = x.transpose(0, 1), None  # batch first, as the recurrence reads it
        if mask is not None:
            padding = ~mask.T[..., None]
            u = u.masked_fill(padding, 0)
        for layer, cell in enumerate(self.cells):
            hidden = run(cell, u, padding)
            if self.bidirectional:
                flipped = None if padding is None else padding.flip(1)
                backward = run(self.reverse_cells[layer], u.flip(1), flipped).flip(1)
                hidden = torch.cat([hidden, backward], dim=-1)
            # States are float32 or wider, the next projection expects the dtype of the input.
            hidden = hidden.to(x.dtype)
            u = hidden + u if self.residual_conn and layer > 0 else hidden
        return u if padding is None else u.masked_fill(padding, 0)

    def read_weights(
        self,
        x: Tensor,
        mask: Tensor | None = None,
        lengths: Tensor | Sequence[int] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return how much each step reads from every other, and how much every step forgets.

        The layer starts from an empty state, without dropout. Time and memory grow with T².

        Parameters
        ----------
        x, mask, lengths
            As in :meth:`forward`.

        Returns
        -------
        weights : Tensor
            Read weights of :func:`mlstm_read_weights`, (D num_layers, B, NH, T, T): first the step
            that reads, then the step that is read. Those of invalid steps are 0, and so are those
            of later steps, or for a backward cell of earlier ones.
        log_f : Tensor
            Logarithm of the forget gates, (D num_layers, B, NH, T), 0 at invalid steps.

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
        given = check_layer_input(self.cells[0], x, mask, lengths, self.batch_first)
        weights: list[Tensor] = []
        forgets: list[Tensor] = []

        def run(cell: mLSTMCell, u: Tensor, padding: Tensor | None) -> Tensor:
            q, k, v, log_i, log_f, o = heads_first(cell.project(u.contiguous()), padding)
            read = mlstm_read_weights(q, k, log_i, log_f)
            # A non-finite value must not affect earlier steps, which give it a weight of 0.
            values = read @ v.nan_to_num(0.0, 0.0, 0.0) + (v - v).cumsum(-2)
            if padding is not None:
                read = read.masked_fill(padding[:, None], 0.0)
            backward = self.bidirectional and len(weights) % 2 == 1
            weights.append(read.flip(-1, -2) if backward else read)
            forgets.append(log_f.flip(-1) if backward else log_f)
            h, o = (part.transpose(1, 2).flatten(-2) for part in (values, o))
            return o * cell.norm_heads(h)

        self._run_stack(run, given.x, given.mask)
        stacked, log_f = given.unbatch(torch.stack(weights), torch.stack(forgets), dim=1)
        return stacked, log_f
