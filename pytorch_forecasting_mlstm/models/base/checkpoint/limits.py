"""Limits of what a checkpoint may ask for: no more than the data that it contains.

Nothing here allocates what it measures. A file may refer to one list a million times, describe a
tensor of terabytes by a stride of zero over four bytes, or have hyper-parameters for layers without
any weights.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .errors import CheckpointError
from .serialization import referenced_object

__all__ = [
    "SizedHparams",
    "check_expanded_size",
    "check_hparam_sizes",
    "check_weights_finite",
    "check_weights_fit",
]

_MAX_DEPTH = 150  # levels of nesting: a loss within a loss takes five
_MAX_EXPANSION = 4  # how often data may be referred to: a normalizer is in two hyper-parameters
_FREE_SIZE = 1 << 18  # what any file may ask for, in bytes, in elements and in weights
_MAX_TEXT_LENGTH = 100_000
_MAX_INT_BITS = 1024
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


def check_expanded_size(data: Any, objects: Any = None, size: int | None = None) -> None:
    """Raise if data would be much larger, once expanded, than what they are stored in.

    Parameters
    ----------
    data : Any
        Content of a file.
    objects : Any
        List of objects that the data refer to by number.
    size : int, optional
        Size of the file in bytes. If it is given, texts and integers are limited, too. Default: the
        size of the distinct tensors and containers in the data.

    Raises
    ------
    CheckpointError
        If anything is too large, or a list or dict contains itself.
    """
    meter = _SizeMeter(objects if isinstance(objects, list) else [], limit_leaves=size is not None)
    expanded_size = max(meter.measure(data, 0), meter.stored_size)
    size = meter.stored_size if size is None else size
    if expanded_size > _MAX_EXPANSION * size + _FREE_SIZE:
        raise CheckpointError(
            f"the data of a checkpoint must not be larger than its file of {size} "
            f"bytes, got about 10^{len(str(expanded_size)) - 1} bytes once expanded; load another "
            f"checkpoint."
        )


class _SizeMeter:
    """Measures expanded data, in bytes of tensors and elements of containers."""

    def __init__(self, objects: list[Any], limit_leaves: bool) -> None:
        self.stored_size = 0  # everything counted once
        self._objects = objects
        self._limit_leaves = limit_leaves
        self._sizes: dict[int, int | None] = {}  # by id; None while it is being measured
        self._storages: set[int] = set()

    def measure(self, value: Any, depth: int) -> int:
        """Return the size of a value, where everything counts as often as it is referred to."""
        if isinstance(value, Tensor):
            return self._measure_tensor(value)
        if not isinstance(value, list | tuple | set | frozenset | dict):
            if self._limit_leaves:
                _check_leaf(value)
            return 1
        key = id(value)
        if key in self._sizes:
            known = self._sizes[key]
            if known is None:
                raise CheckpointError(
                    "the objects in the checkpoint are damaged, a list or dict contains "
                    "itself; load another checkpoint."
                )
            return known
        if depth > _MAX_DEPTH:
            raise CheckpointError(
                f"the objects in the checkpoint are damaged, they are nested more than "
                f"{_MAX_DEPTH} levels deep; load another checkpoint."
            )
        self._sizes[key] = None
        self.stored_size += 1 + len(value)
        total = 1
        for item in value:
            total += self.measure(item, depth + 1)
        if isinstance(value, dict):
            for item in value.values():
                total += self.measure(item, depth + 1)
            total += self._measure_reference(value, depth)
        self._sizes[key] = total
        return total

    def _measure_reference(self, value: dict[Any, Any], depth: int) -> int:
        """Measure the object that a dict refers to; unlike a list, it may contain itself."""
        number = referenced_object(value)
        if number is None or not 0 <= number < len(self._objects):
            return 0
        item = self._objects[number]
        if self._sizes.get(id(item), 0) is None:
            return 1
        return self.measure(item, depth + 1)

    def _measure_tensor(self, value: Tensor) -> int:
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise CheckpointError(
                f"the checkpoint must contain dense tensors, got one of layout "
                f"{value.layout} and {value.dtype}; load another one."
            )
        if value.is_meta:
            raise CheckpointError(
                "the checkpoint must contain dense tensors, got one without data; load another one."
            )
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.stored_size += storage.nbytes()
        # an empty tensor may have a dimension of any size, which operations iterate over
        longest = max(value.shape, default=0)
        return 1 + max(value.numel() * value.element_size(), longest)


def _check_leaf(value: Any) -> None:
    is_long_text = isinstance(value, str | bytes) and len(value) > _MAX_TEXT_LENGTH
    is_large_int = isinstance(value, int) and value.bit_length() > _MAX_INT_BITS
    if is_long_text or is_large_int:
        raise CheckpointError(
            f"the checkpoint must contain texts of at most {_MAX_TEXT_LENGTH} "
            f"characters and integers of at most {_MAX_INT_BITS} bits, got "
            f"{len(value) if is_long_text else value.bit_length()}; load another one."
        )


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
    CheckpointError
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
            raise CheckpointError(
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
            raise CheckpointError(
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
    CheckpointError
        If a weight has another shape or is not finite, or if too many are missing.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # it is built again later
        model = build()
    expected = model.state_dict()
    for name, weight in expected.items():
        if name in weights and weights[name].shape != weight.shape:
            raise CheckpointError(
                f"the hyper-parameters require {name} of shape {tuple(weight.shape)}, "
                f"the checkpoint has {tuple(weights[name].shape)}; it is damaged, or an argument "
                f"given to load_from_checkpoint does not fit it."
            )
    required = sum(weight.numel() for weight in expected.values() if weight.is_meta)
    count = sum(weight.numel() for weight in weights.values())
    if required > _MAX_EXPANSION * count + _FREE_SIZE:
        raise CheckpointError(
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
    CheckpointError
        If a weight is NaN or infinite.
    """
    for name, _ in model.named_parameters(remove_duplicate=False):
        weight = weights.get(name)
        if isinstance(weight, Tensor) and not weight.isfinite().all():
            raise CheckpointError(
                f"the checkpoint has weights that are not finite, in {name}; load one "
                f"from before the training diverged."
            )
