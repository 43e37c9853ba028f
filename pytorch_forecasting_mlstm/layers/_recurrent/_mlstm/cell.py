"""The mLSTM cell: one time step of a recurrent network with a matrix memory."""

from typing import Any

import torch
from torch import Tensor, nn

from ...._arguments import suggest_arguments
from ...._validation import (
    check_bool,
    check_dropout,
    check_int,
    check_tensor,
)
from .argument_hints import CELL_HINTS
from .dropout import Dropout
from .functional import mLSTMState
from .input_check import check_input
from .norms import CellNorms, HeadNorm, LayerNorm, normalize_parts
from .onednn_linear import OneDNNLinear
from .ops.dispatch import step
from .ops.overflow import raise_on_overflow
from .ops.types import at_least_float32
from .plain_modules import is_plain_parameter, runs_only_forward
from .preactivations import apply_gate_activations

__all__ = ["mLSTMCell"]

_FORGET_BIAS = (3.0, 6.0)  # first and last head: memories of about 20 to 400 steps


class mLSTMCell(nn.Module):
    r"""A cell of the mLSTM, the LSTM with a matrix memory.

    Per head, with head size :math:`d` (both K and V)::

        q = W_q x + b_q        k = (W_k x + b_k) / √d        v = W_v x + b_v
        i = exp(cap(w_i x + b_i))      f = σ(w_f x + b_f)      o = σ(W_o x + b_o)
        C' = f C + i v kᵀ              n' = f n + i k
        h' = o ⊙ C' q / max(|n'ᵀ q|, 1)

    with ``cap(z) = 15 tanh(z / 15)``. The states returned are the true memory C' and normalizer n'.
    h does not feed back into the cell: ``h_prev`` is checked and has no influence. A whole sequence
    can therefore be computed at once (:class:`~pytorch_forecasting_mlstm.mLSTMLayer`).

    With ``num_heads=None`` every hidden unit is a head of its own with a 1×1 memory, and c has the
    shape ``(batch, hidden_size)``. With ``num_heads=4`` there are four full matrices of
    ``hidden_size / 4`` squared.

    Parameters
    ----------
    input_size : int
        Width of the input.
    hidden_size : int
        Width of the hidden state, H.
    dropout : float, default 0.2
        Probability of dropout on the input and on the returned hidden state.
    layer_norm : bool, default True
        Normalize q, k and v over H (k before it is scaled), and the pre-activations of all gates
        together. If H is below 3, q, k and v are not normalized, because a norm over one or two
        values would erase them.
    num_heads : int, optional
        Heads, NH, each with a matrix memory of H/NH × H/NH. Default: as many heads as hidden units.
    norm_heads : bool, default False
        Normalize what every head reads, ``C' q / max(|n'ᵀ q|, 1)``, over its units before the
        output gate, as in the paper's block. This bounds h, which otherwise grows with the length
        of a sequence. It needs heads of at least 3 units.

    Attributes
    ----------
    projection : nn.Linear
        All projections in one, with rows in the order q, k, v (H each), i, f (NH each), o (H).
    norm_q, norm_k, norm_v, norm_gates : nn.Module
        The layer norms; identities without ``layer_norm``.
    norm_heads : nn.Module
        The norm of every head; the identity without ``norm_heads``.

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type, a size is below 1, ``hidden_size`` is not a multiple of
        ``num_heads``, heads are too small for ``norm_heads``, or dropout is outside [0, 1).

    Notes
    -----
    Parameters are initialized as in :class:`torch.nn.Linear`, except for the bias of the forget
    gate, which is spread from 3 to 6 over the heads so that they remember at different time scales.
    States are float32 or wider, under autocast too.

    References
    ----------
    .. [1] M. Beck et al., "xLSTM: Extended Long Short-Term Memory", arXiv:2405.04517, equations 19
       to 27.
    .. [2] M. Beck et al., "xLSTM 7B", arXiv:2503.13427 (the soft cap).

    Examples
    --------
    >>> import torch
    >>> from pytorch_forecasting_mlstm import mLSTMCell
    >>> cell = mLSTMCell(input_size=3, hidden_size=8)
    >>> h, c, n = cell.init_hidden(batch_size=2)
    >>> for x in torch.randn(5, 2, 3):  # five time steps
    ...     h, c, n = cell(x, h, c, n)
    >>> h.shape, c.shape, n.shape
    (torch.Size([2, 8]), torch.Size([2, 8]), torch.Size([2, 8]))

    With full matrix memories:

    >>> cell = mLSTMCell(input_size=3, hidden_size=8, num_heads=2)
    >>> h, c, n = cell(torch.randn(2, 3), *cell.init_hidden(batch_size=2))
    >>> c.shape
    torch.Size([2, 2, 4, 4])
    """

    @suggest_arguments(CELL_HINTS)
    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        dropout: float = 0.2,
        layer_norm: bool = True,
        *,
        num_heads: int | None = None,
        norm_heads: bool = False,
    ) -> None:
        super().__init__()
        check_int("mLSTMCell", "input_size", input_size)
        check_int("mLSTMCell", "hidden_size", hidden_size)
        check_dropout("mLSTMCell", dropout)
        check_bool("mLSTMCell", "layer_norm", layer_norm)
        if num_heads is not None:
            check_int("mLSTMCell", "num_heads", num_heads)
            if hidden_size % num_heads:
                raise ValueError(
                    f"mLSTMCell: hidden_size must be a multiple of num_heads, "
                    f"got {hidden_size} and {num_heads}."
                )
        check_bool("mLSTMCell", "norm_heads", norm_heads)
        heads = hidden_size if num_heads is None else num_heads
        if norm_heads and hidden_size // heads < 3:
            raise ValueError(
                f"mLSTMCell: norm_heads needs heads of at least 3 units, got {hidden_size} units "
                f"in {heads} heads, whose values a norm would erase; pass fewer num_heads, or "
                f"norm_heads=False."
            )
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.layer_norm = layer_norm
        self.num_heads = num_heads
        self.heads = heads
        self.head_dim = hidden_size // self.heads

        self.dropout = Dropout(dropout)
        self.projection = OneDNNLinear(input_size, 4 * hidden_size + 2 * self.heads)
        # A norm erases a single value, and of two values keeps only which one is larger.
        norm_units = layer_norm and hidden_size > 2
        self.norm_q = LayerNorm(hidden_size) if norm_units else nn.Identity()
        self.norm_k = LayerNorm(hidden_size) if norm_units else nn.Identity()
        self.norm_v = LayerNorm(hidden_size) if norm_units else nn.Identity()
        gates = hidden_size + 2 * self.heads
        self.norm_gates = LayerNorm(gates) if layer_norm else nn.Identity()
        self.has_head_norm = norm_heads
        self.norm_heads = HeadNorm(heads, hidden_size) if norm_heads else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialize the parameters."""
        for module in self.children():
            if isinstance(module, nn.Linear | nn.LayerNorm):
                module.reset_parameters()
        # The last H + 2 NH entries of either bias belong to the gates, in the order i, f, o.
        norm = self.norm_gates
        bias = norm.bias if isinstance(norm, nn.LayerNorm) else self.projection.bias
        first = len(bias) - self.hidden_size - self.heads
        with torch.no_grad():
            bias[first : first + self.heads] = torch.linspace(*_FORGET_BIAS, self.heads)

    def extra_repr(self) -> str:
        """Arguments as printed by ``repr``."""
        return (
            f"{self.input_size}, {self.hidden_size}, layer_norm={self.layer_norm}, "
            f"num_heads={self.num_heads}, norm_heads={self.has_head_norm}"
        )

    @property
    def state_dtype(self) -> torch.dtype:
        """Dtype of h, c and n: that of the weights, but at least float32."""
        return at_least_float32(self.projection.weight.dtype)

    def memory_shape(self, batch_size: int) -> tuple[int, ...]:
        """Shape of c for a batch."""
        if self.num_heads is None:
            return (batch_size, self.hidden_size)
        return (batch_size, self.num_heads, self.head_dim, self.head_dim)

    def init_hidden(
        self, batch_size: int, device: torch.device | str | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the empty state.

        Parameters
        ----------
        batch_size : int
            Batch, B.
        device : torch.device or str, optional
            Default: the device of the weights.

        Returns
        -------
        h, c, n : Tensor
            Zeros of (B, H), of (B, H) or with ``num_heads`` (B, NH, H/NH, H/NH), and of (B, H).

        Raises
        ------
        TypeError, ValueError
            If ``batch_size`` is not an int of at least 0.
        """
        check_int("mLSTMCell", "batch_size", batch_size, minimum=0)
        device = self.projection.weight.device if device is None else device
        unit = torch.zeros(batch_size, self.hidden_size, dtype=self.state_dtype, device=device)
        memory = torch.zeros(self.memory_shape(batch_size), dtype=self.state_dtype, device=device)
        return unit, memory, unit.clone()

    def forward(
        self, x: Tensor, h_prev: Tensor, c_prev: Tensor, n_prev: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Take one time step.

        Parameters
        ----------
        x : Tensor
            Input, (B, input_size).
        h_prev : Tensor
            Previous hidden state, (B, H). It is checked and has no influence.
        c_prev : Tensor
            Previous memory, (B, H), or with ``num_heads`` (B, NH, H/NH, H/NH).
        n_prev : Tensor
            Previous normalizer, (B, H).

        Returns
        -------
        h, c, n : Tensor
            The states after the step, of the same shapes.

        Raises
        ------
        TypeError, ValueError
            If a tensor has an unexpected shape, dtype or device, or finite inputs are so large that
            their products overflow (on the CPU; elsewhere h is inf or NaN).
        """
        projection = self.projection
        if not self._inputs_fit(x, h_prev, c_prev, n_prev, projection.weight):
            self._check_inputs(x, h_prev, c_prev, n_prev)
        if self.training:
            x = self.dropout(x)
        h, c, n, finite = step(projection(x), self._norms(), c_prev, n_prev)
        if not finite:
            self._raise_on_overflow((h, n), x, c_prev, n_prev)
        if self.training:
            h = self.dropout(h)
        return h, c, n

    def _raise_on_overflow(
        self, results: tuple[Tensor, Tensor], x: Tensor, c: Tensor, n: Tensor
    ) -> None:
        """Raise if results are not finite although everything they depend on is."""
        inputs = {"x": x, "c_prev": c, "n_prev": n, **dict(self.named_parameters())}
        raise_on_overflow("mLSTMCell", results, lambda: inputs)

    def _inputs_fit(self, x: Tensor, h: Tensor, c: Tensor, n: Tensor, weight: Tensor) -> bool:
        """Whether the inputs certainly pass ``_check_inputs``, in one fast expression."""
        if not type(x) is type(h) is type(c) is type(n) is Tensor or x.dim() != 2:
            return False
        B, device, dtype = x.shape[0], weight.device, weight.dtype
        return (
            x.shape[1] == self.input_size
            and h.shape == n.shape == (B, self.hidden_size)
            and c.shape == self.memory_shape(B)
            and x.dtype == h.dtype == c.dtype == n.dtype == dtype
            and (dtype == torch.float32 or dtype == torch.float64)
            and x.device == h.device == c.device == n.device == device
        )

    def _check_inputs(self, x: Tensor, h: Tensor, c: Tensor, n: Tensor) -> None:
        """Raise an error that names the first argument that does not fit."""
        weight = self.projection.weight
        check_input("mLSTMCell", x, ("batch",), self.input_size, weight)
        B = x.shape[0]
        unit, memory = (B, self.hidden_size), self.memory_shape(B)
        for name, part, shape in (("h_prev", h, unit), ("c_prev", c, memory), ("n_prev", n, unit)):
            check_tensor(
                "mLSTMCell", name, part, shape, dtype=self.state_dtype, device=weight.device
            )

    def _norms(self) -> CellNorms:
        # A step would notice how long the attributes of a module take.
        modules: dict[str, Any] = self._modules
        heads = modules["norm_heads"] if self.has_head_norm else None
        if not self.layer_norm:
            return CellNorms(None, heads)
        parts = (modules["norm_q"], modules["norm_k"], modules["norm_v"], modules["norm_gates"])
        return CellNorms(parts, heads)

    # mLSTMLayer uses the following methods to compute a whole sequence at once.

    def preactivations(self, x: Tensor) -> Tensor:
        """Project x (..., input_size): (..., 4 H + 2 NH), normalized, float32 or wider."""
        p = self.projection(x)
        return self._all_normalized(p) if self.layer_norm else p.to(self.state_dtype)

    def project_unnormalized(self, x: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
        """Project x, and return the ``norm_arguments`` that remain to be applied, or nothing."""
        p = self.projection(x)
        if not self.layer_norm:
            return p.to(self.state_dtype), ()
        norms = self.norm_arguments()
        if p.is_cuda and torch.is_autocast_enabled("cuda"):
            p = p.to(self.state_dtype)  # in which autocast computes layer norms there
        # Norms of a lower precision are computed in that precision.
        if norms is None or p.dtype != self.state_dtype or p.dtype != norms[1].dtype:
            return self._all_normalized(p), ()
        return p, norms

    def norm_arguments(self) -> tuple[Any, ...] | None:
        """Return the arguments of ``LayerNormParams.of`` for the layer norms.

        They are eps, all weights and all biases; nothing without layer norms; None if calling the
        modules may do anything else.
        """
        if not self.layer_norm:
            return ()
        H, like = self.hidden_size, self.projection.weight
        modules = (self.norm_q, self.norm_k, self.norm_v, self.norm_gates)
        for module, width in zip(modules, (H, H, H, H + 2 * self.heads), strict=True):
            if type(module) not in (LayerNorm, nn.LayerNorm) or not runs_only_forward(module):
                return None
            parameters = (module._parameters.get(name) for name in ("weight", "bias"))
            if not all(is_plain_parameter(part, like, (width,)) for part in parameters):
                return None
        eps = {module.eps for module in modules}
        if len(eps) > 1:
            return None
        return *eps, *(norm.weight for norm in modules), *(norm.bias for norm in modules)

    def _all_normalized(self, p: Tensor) -> Tensor:
        """Normalize p (..., 4 H + 2 NH), float32 or wider."""
        parts = normalize_parts(p, self._norms(), self.heads, self.state_dtype)
        return torch.cat(parts, dim=-1)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Project x (..., input_size).

        Returns q, k, v (..., NH, K), the logarithms of i and f (..., NH), and o (..., NH, V), all
        float32 or wider.
        """
        return apply_gate_activations(self.preactivations(x), self.heads)

    def to_state(self, c: Tensor, n: Tensor) -> mLSTMState:
        """View the true c and n as the state of every head, at a scale of 1."""
        B, NH, d = n.shape[0], self.heads, self.head_dim
        return mLSTMState(c.reshape(B, NH, d, d), n.reshape(B, NH, d), n.new_zeros(B, NH))

    def from_state(self, state: mLSTMState) -> tuple[Tensor, Tensor]:
        """Return the true c and n, in the shapes that ``forward`` documents."""
        scale = state.m.exp()[..., None]
        c = (state.c * scale[..., None]).reshape(self.memory_shape(state.c.shape[0]))
        return c, (state.n * scale).flatten(-2)
