"""The tensors of the recurrence, by name."""

from typing import NamedTuple

import torch
from torch import Tensor

__all__ = ["Inputs", "OutputGrads", "StepResult", "at_least_float32", "mLSTMState"]


def at_least_float32(*dtypes: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in, for floating-point arguments of these dtypes.

    This is ``torch.promote_types``, which an exported graph would contain as an operation.
    """
    return torch.float64 if torch.float64 in dtypes else torch.float32


class Inputs(NamedTuple):
    """What the recurrence reads: (B, NH, T, ...), or (B, NH, ...) for one step.

    Attributes
    ----------
    q, k : Tensor
        Queries and keys, (B, NH, T, K).
    v : Tensor
        Values, (B, NH, T, V).
    log_i, log_f : Tensor
        Logarithms of input and forget gates, (B, NH, T).
    """

    q: Tensor
    k: Tensor
    v: Tensor
    log_i: Tensor
    log_f: Tensor

    def at(self, steps: slice | int) -> "Inputs":
        """Select steps."""
        return Inputs(*(x[:, :, steps] for x in self))


class mLSTMState(NamedTuple):
    """The memory of every head, stabilized.

    The true memory is ``c * exp(m)``, the true normalizer ``n * exp(m)``.

    Attributes
    ----------
    c : Tensor
        Matrix memory, (B, NH, V, K).
    n : Tensor
        Normalizer, (B, NH, K).
    m : Tensor
        Logarithm of the scale that ``c`` and ``n`` were divided by, (B, NH). ``-inf`` is read as
        "empty".
    """

    c: Tensor
    n: Tensor
    m: Tensor


class OutputGrads(NamedTuple):
    """Gradients of the read-out and of the last state; None where a result is not used."""

    h: Tensor | None
    c: Tensor | None
    n: Tensor | None
    m: Tensor | None


class StepResult(NamedTuple):
    """What one step of a cell returns.

    Attributes
    ----------
    h, n : Tensor
        Gated read-out and normalizer, (B, H).
    c : Tensor
        Memory, (B, NH, d, d), or (B, H) for memories of 1×1.
    finite : bool
        False if a result is not finite. True without a look at them outside of eager mode and the
        CPU.
    """

    h: Tensor
    c: Tensor
    n: Tensor
    finite: bool
