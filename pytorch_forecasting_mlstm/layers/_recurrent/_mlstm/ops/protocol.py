"""What a backend is: the members that the rest of the package calls."""

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from torch import Tensor

from ..norms import CellNorms
from .dropout_draw import DropoutDraw
from .layer_norm import LayerNormForms, LayerNormParams
from .types import Inputs, OutputGrads, StepResult, mLSTMState

__all__ = ["Backend", "CellForms", "CellGrads", "CellInputs", "Normalizing"]


class CellInputs(NamedTuple):
    """What a cell computes a whole sequence from.

    Attributes
    ----------
    x : Tensor
        Input, (B, T, input_size).
    weight, bias : Tensor
        Of the projection, (W, input_size) and (W), with W = 4 H + 2 NH.
    norms : LayerNormParams or None
        Layer norms of the pre-activations.
    state : mLSTMState
        State before the first step, at a scale of 1.
    padding : Tensor or None
        Steps that leave the state as it is, bool, (B, T, 1).
    dropout : DropoutDraw or None
        Dropout of x and of h.
    """

    x: Tensor
    weight: Tensor
    bias: Tensor
    norms: LayerNormParams | None
    state: mLSTMState
    padding: Tensor | None
    dropout: DropoutDraw | None = None


class CellGrads(NamedTuple):
    """Gradients of the inputs of a cell; that of x is None if it is not needed."""

    x: Tensor | None
    weight: Tensor
    bias: Tensor
    norms: list[Tensor]
    c: Tensor
    n: Tensor


class CellForms(NamedTuple):
    """Both passes of a whole cell, which keeps no pre-activations.

    ``supports`` takes x, weight and the head size. It looks at no number of samples or steps, since
    ``torch.compile`` traces it. ``pays_off`` takes x and weight, and looks at these numbers. Where
    it is False, ``normalizing`` of the same backend takes less time. ``forward`` returns the gated
    h (B, T, H), in memory in the order of x, and the last state. ``backward`` takes the inputs, the
    gradients of the results, and whether that of x is needed. m is a constant.
    """

    supports: Callable[[Tensor, Tensor, int], bool]
    pays_off: Callable[[Tensor, Tensor], bool]
    forward: Callable[[CellInputs], tuple[Tensor, mLSTMState]]
    backward: Callable[[CellInputs, OutputGrads, bool], CellGrads]


class Normalizing(NamedTuple):
    """Both passes of a gated recurrence that applies the layer norms itself.

    ``forward`` takes (p, norms, state, padding) and returns h (B, T, H), in memory time first, and
    the last state. ``backward`` takes the same and the gradients of the results. It returns the
    gradients of p, of all weights and biases, and of c, n and m. What is said of m for ``gated_*``
    holds here, too. Norms of None are none.
    """

    forward: Callable[
        [Tensor, LayerNormParams | None, mLSTMState, Tensor | None], tuple[Tensor, mLSTMState]
    ]
    backward: Callable[
        [Tensor, LayerNormParams | None, mLSTMState, Tensor | None, OutputGrads],
        tuple[Tensor, list[Tensor], tuple[Tensor, Tensor, Tensor | None]],
    ]


class Backend(Protocol):
    """The members of a backend.

    ``plan_*`` look at the data and decide what both passes must do in the same way. ``*_fwd``
    return h, the last state, and what they save for ``*_bwd``, in the shapes of ``*_saved_shapes``.

    L is a proposed size of chunks, which a backend may ignore. With ``SAVES_H``, ``chunkwise_bwd``
    gets h before what ``chunkwise_fwd`` has saved.

    With ``READS_16_BITS``, q, k and v of ``chunkwise_*`` may have 16 bits, and then so have their
    gradients. Everything else has one dtype, float32 or float64.

    ``step`` takes what ``ops/step.py`` documents, and is differentiable by itself. It returns None
    for what the backend cannot compute: a step is too short for looking at its tensors twice. It is
    None if the backend can compute no step.

    ``cell`` is None if the backend cannot compute a whole cell, with its projection, and
    ``normalizing`` if the layer norms are to be applied before ``gated_*``. A backend with ``cell``
    has ``normalizing``, too. ``layer_norm`` are the norms that are applied then, or None for those
    of torch.

    ``gated_*`` take pre-activations as one tensor (B, T, 4 H + 2 NH), or in four parts: q, k, v and
    all gates. ``gated_fwd`` returns h (B, T, H) in memory time first. Without ``SAVES_H``,
    ``gated_bwd`` gets None for the last c and n, except under ``torch.compile``. If ``gated_fwd``
    returns the first m itself as the last one, c and n are divided by that scale, and m has no
    gradient.

    ``supports_*`` are called in eager mode, while ``torch.compile`` traces and under ``torch.func``
    transforms, with whatever tensors there are: they must return False for what the backend cannot
    compute.
    """

    NAME: str
    SAVES_H: bool
    READS_16_BITS: bool

    def supports_chunkwise(self, inputs: Inputs, chunk_size: int | None) -> bool:
        """Whether these sequences can be computed."""

    def supports_gated(self, p: Tensor, head_dim: int) -> bool:
        """Whether pre-activations like these can be computed."""

    def plan_chunkwise(self, inputs: Inputs, L: int) -> bool:
        """Return the plan of a recurrence in chunks of L steps."""

    def plan_gated(
        self, parts: Sequence[Tensor], state: mLSTMState, padding: Tensor | None, L: int
    ) -> bool:
        """Return the plan of a gated recurrence."""

    def chunkwise_saved_shapes(self, state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
        """Return the shapes of what ``chunkwise_fwd`` saves."""

    def gated_saved_shapes(self, state: mLSTMState, T: int, L: int) -> list[tuple[int, ...]]:
        """Return the shapes of what ``gated_fwd`` saves."""

    def gated_tile_width(self, projected: int, NH: int, L: int) -> int:
        """Return the elements per step of the largest temporary of a layer."""

    def op_tile_width(self, projected: int, NH: int, L: int) -> int:
        """Return the same for the custom op alone; 0 to compute all samples at once."""

    def chunkwise_fwd(
        self, inputs: Inputs, state: mLSTMState, L: int, plan: bool, /
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        """Run the recurrence."""

    def chunkwise_bwd(
        self,
        inputs: Inputs,
        state: mLSTMState,
        last_c: Tensor,
        last_n: Tensor,
        saved: tuple[Tensor, ...],
        grads: OutputGrads,
        L: int,
        plan: bool,
        /,
    ) -> tuple[Tensor, ...]:
        """Return the gradients of the inputs and of the state."""

    def gated_fwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        L: int,
        plan: bool,
        /,
    ) -> tuple[Tensor, mLSTMState, tuple[Tensor, ...]]:
        """Run the gated recurrence."""

    def gated_bwd(
        self,
        parts: Sequence[Tensor],
        state: mLSTMState,
        padding: Tensor | None,
        last_c: Tensor,
        last_n: Tensor,
        saved: Sequence[Tensor],
        grads: OutputGrads,
        L: int,
        plan: bool,
        /,
    ) -> tuple[list[Tensor], tuple[Tensor, Tensor, Tensor | None]]:
        """Return the gradients of the parts and of the state."""

    @property
    def cell(self) -> CellForms | None:
        """The whole cell."""

    @property
    def normalizing(self) -> Normalizing | None:
        """The gated recurrence of pre-activations that are not normalized."""

    @property
    def layer_norm(self) -> LayerNormForms | None:
        """The layer norms of pre-activations."""

    @property
    def step(self) -> Callable[[Tensor, CellNorms, Tensor, Tensor], StepResult | None] | None:
        """The function that takes a step of a cell."""
