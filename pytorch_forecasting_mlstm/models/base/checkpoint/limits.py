"""Limits of what a checkpoint may ask for: no more than the data that it contains.

Nothing here allocates what it measures. A file may have hyper-parameters for layers without any
weights.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ...._safe_files.errors import RejectedFileError

__all__ = [
    "SizedHparams",
    "check_hparam_sizes",
    "check_weights_finite",
    "check_weights_fit",
]

_MAX_EXPANSION = 4  # weights that a model may have for each one in the file
_FREE_SIZE = 1 << 18  # weights that any model may have
_FREE_HPARAM = 1024  # size that costs nothing to build, whatever the weights


class SizedHparams(NamedTuple):
    """Hyper-parameters that determine how many weights a model has.

    Attributes
    ----------
    sizes : tuple of str
        Those that determine lengths of tensors or numbers of layers.
    layers : dict of str to str
        For each of these that is a number of layers, a pattern of the names of a layer's weights.
    reals, categoricals : tuple of str
        Lists of variables, if each real one has a column of weights, and each categorical one an
        embedding.
    """

    sizes: tuple[str, ...] = ("max_encoder_length", "max_prediction_length", "output_size")
    layers: Mapping[str, str] = MappingProxyType({})
    reals: tuple[str, ...] = ()
    categoricals: tuple[str, ...] = ()


def check_hparam_sizes(
    hparams: Mapping[str, Any], weights: Mapping[str, Tensor], sized: SizedHparams
) -> None:
    """Raise if hyper-parameters are too large for the weights, before a model is built.

    Parameters
    ----------
    hparams : dict
        Arguments of the model.
    weights : dict of str to Tensor
        Weights in the file.
    sized : SizedHparams
        The hyper-parameters to check.

    Raises
    ------
    RejectedFileError
        If a size exceeds the number of all weights, or there are more layers or variables than
        there are weights for.
    """
    count = sum(weight.numel() for weight in weights.values())
    nonempty = {name: weight for name, weight in weights.items() if weight.numel() and weight.dim()}
    columns = sum(weight.shape[-1] for weight in nonempty.values())
    for name in (*sized.reals, *sized.categoricals):
        variables = hparams.get(name)
        limit = columns if name in sized.reals else len(nonempty)
        if isinstance(variables, list | tuple) and len(variables) > limit:
            raise RejectedFileError(
                f"the checkpoint has weights for at most {limit} variables in {name}, "
                f"got {len(variables)}; it is damaged, load another one."
            )
    for name in sized.sizes:
        limit = max(count, _FREE_HPARAM)
        if name in sized.layers:
            matches = (re.match(sized.layers[name], weight) for weight in nonempty)
            limit = len({match[0] for match in matches if match})
        largest = _max_number(hparams.get(name))
        if largest > limit:
            raise RejectedFileError(
                f"the checkpoint has weights for a {name} of at most {limit}, got "
                f"{largest:.4g}; it is damaged, load another one."
            )


def _max_number(value: Any) -> float:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return max(map(_max_number, value), default=0)
    return float(value) if isinstance(value, int | float) else 0


def check_weights_fit(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Build a model without memory, and raise if weights do not fit it or are not finite.

    Parameters
    ----------
    build : callable
        Builds the model. Tensors that it creates are on torch's meta device, which has no memory.
    weights : dict of str to Tensor
        Weights in the file.

    Raises
    ------
    RejectedFileError
        If a weight has another shape or is not finite, or if too many are missing.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # it is built again later
        model = build()
    expected = model.state_dict()
    for name, weight in expected.items():
        if name in weights and weights[name].shape != weight.shape:
            raise RejectedFileError(
                f"the hyper-parameters require {name} of shape {tuple(weight.shape)}, "
                f"the checkpoint has {tuple(weights[name].shape)}; it is damaged, or an argument "
                f"given to load_from_checkpoint does not fit it."
            )
    required = sum(weight.numel() for weight in expected.values() if weight.is_meta)
    count = sum(weight.numel() for weight in weights.values())
    if required > _MAX_EXPANSION * count + _FREE_SIZE:
        raise RejectedFileError(
            f"the hyper-parameters require {required} weights, the checkpoint has "
            f"{count}; it is damaged, load another one."
        )
    check_weights_finite(model, weights)


def check_weights_finite(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Raise if a weight is not finite. Buffers need not be: a mask may contain infinity.

    Parameters
    ----------
    model : nn.Module
        Model that the weights are for.
    weights : dict of str to Tensor
        State of the model.

    Raises
    ------
    RejectedFileError
        If a weight is NaN or infinite.
    """
    for name, _ in model.named_parameters(remove_duplicate=False):
        weight = weights.get(name)
        if isinstance(weight, Tensor) and not weight.isfinite().all():
            raise RejectedFileError(
                f"the checkpoint has weights that are not finite, in {name}; load one "
                f"from before the training diverged."
            )
