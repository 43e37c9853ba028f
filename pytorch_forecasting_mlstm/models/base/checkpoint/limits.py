"""How much a checkpoint may ask for: no more than the data in it, whatever its numbers say.

Nothing here allocates what it measures. A list that is written once may be found in a file a
million times, a tensor of four bytes may have a stride of zero and a shape of terabytes, and
hyper-parameters may ask for layers that no weights are there for.
"""

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from .serialization import referred

__all__ = ["check_extent", "check_finite", "check_sizes", "check_weights"]

_DEPTH = 150  # levels of nesting, of which a loss of losses of losses takes five each
_TIMES = 4  # how often data may be referred to: a normalizer is in two hyper-parameters
_FREE = 1 << 18  # what any file may ask for, in bytes and in elements
_LONGEST = 100_000  # characters of a text
_LARGEST = 1024  # bits of a number
_SMALL = 1024  # size that costs nothing to build, whatever the weights

#: Hyper-parameters that layers are counted by, or that tensors are as long as when it forecasts.
_SIZES = (
    "hidden_size",
    "max_encoder_length",
    "max_prediction_length",
    "moving_averages",
    "num_heads",
    "num_layers",
    "output_size",
    "patch_length",
)
#: Hyper-parameters of names that have a column of weights each, and an embedding each.
_REALS = ("static_reals", "time_varying_reals_encoder", "time_varying_reals_decoder")
_CATEGORICALS = (
    "static_categoricals",
    "time_varying_categoricals_encoder",
    "time_varying_categoricals_decoder",
)


def check_extent(data: Any, objects: Any = None, size: int | None = None) -> None:
    """Refuse data that are larger, written out, than what they are written with.

    Parameters
    ----------
    data : Any
        What a file holds.
    objects : Any
        List of objects that the data refer to by number.
    size : int, optional
        Bytes of the file, where its texts and numbers are bounded, too. Default: those of the
        distinct tensors and elements in the data.

    Raises
    ------
    ValueError
        If there is too much of anything, or a list within itself.
    """
    meter = _Meter(objects if isinstance(objects, list) else [], bounded=size is not None)
    extent = max(meter.extent(data, 0), meter.size)
    size = meter.size if size is None else size
    if extent > _TIMES * size + _FREE:
        raise ValueError(
            f"mLSTMTime: the checkpoint must take no more than its file holds, {size} bytes: "
            f"written out, its data would take some 10^{len(str(extent)) - 1}; take another one."
        )


class _Meter:
    """Measures data in bytes of tensors and elements of containers, each time they are met."""

    def __init__(self, objects: list[Any], bounded: bool) -> None:
        self.size = 0  # of what is met, each once
        self._objects = objects
        self._bounded = bounded
        self._extents: dict[int, int | None] = {}  # by id; None while it is being measured
        self._storages: set[int] = set()

    def extent(self, value: Any, depth: int) -> int:
        if isinstance(value, Tensor):
            return self._of_tensor(value)
        if not isinstance(value, list | tuple | set | frozenset | dict):
            if self._bounded:
                _check_leaf(value)
            return 1
        key = id(value)
        if key in self._extents:
            known = self._extents[key]
            if known is None:
                raise ValueError(
                    "mLSTMTime: the objects in the checkpoint are damaged, a list or dict is "
                    "within itself; take another checkpoint."
                )
            return known
        if depth > _DEPTH:
            raise ValueError(
                f"mLSTMTime: the objects in the checkpoint are damaged, they are nested more than "
                f"{_DEPTH} levels deep; take another checkpoint."
            )
        self._extents[key] = None
        self.size += 1 + len(value)
        total = 1
        for part in value:
            total += self.extent(part, depth + 1)
        if isinstance(value, dict):
            for part in value.values():
                total += self.extent(part, depth + 1)
            total += self._of_object(value, depth)
        self._extents[key] = total
        return total

    def _of_object(self, value: dict[Any, Any], depth: int) -> int:
        """Measure what a reference leads to; an object, unlike a list, may be within itself."""
        number = referred(value)
        if number is None or not 0 <= number < len(self._objects):
            return 0
        item = self._objects[number]
        if self._extents.get(id(item), 0) is None:
            return 1
        return self.extent(item, depth + 1)

    def _of_tensor(self, value: Tensor) -> int:
        if value.layout is not torch.strided or value.is_quantized or value.is_nested:
            raise ValueError(
                f"mLSTMTime: the checkpoint must hold dense tensors, got one of layout "
                f"{value.layout} and {value.dtype}; take another one."
            )
        if value.is_meta:
            raise ValueError(
                "mLSTMTime: the checkpoint must hold dense tensors, got one without data; take "
                "another one."
            )
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._storages:
            self._storages.add(storage.data_ptr())
            self.size += storage.nbytes()
        # an empty tensor may have a dimension of any length, and be laid out along it
        longest = max(value.shape, default=0)
        return 1 + max(value.numel() * value.element_size(), longest)


def _check_leaf(value: Any) -> None:
    long = isinstance(value, str | bytes) and len(value) > _LONGEST
    large = isinstance(value, int) and value.bit_length() > _LARGEST
    if long or large:
        raise ValueError(
            f"mLSTMTime: the checkpoint must hold texts of up to {_LONGEST} characters and numbers "
            f"of up to {_LARGEST} bits, got {len(value) if long else value.bit_length()}; take "
            f"another one."
        )


def check_sizes(hyper_parameters: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse sizes of which there cannot be weights, before anything is built by them.

    Parameters
    ----------
    hyper_parameters : dict
        Arguments of the model.
    weights : dict of str to Tensor
        What the file holds for them.

    Raises
    ------
    ValueError
        If a size is larger than the number of all weights, or there are more layers or variables
        than weights for them.
    """
    numbers = sum(weight.numel() for weight in weights.values())
    held = {name: weight for name, weight in weights.items() if weight.numel() and weight.dim()}
    layers = {
        found[0] for name in held if (found := re.match(r"network\.memory\.cells\.\d+\.", name))
    }
    widths = sum(weight.shape[-1] for weight in held.values())
    for name in (*_REALS, *_CATEGORICALS):
        names = hyper_parameters.get(name)
        limit = widths if name in _REALS else len(held)
        if isinstance(names, list | tuple) and len(names) > limit:
            raise ValueError(
                f"mLSTMTime: the checkpoint has {len(names)} names in {name}, but weights for "
                f"{limit} at most; it is damaged, take another one."
            )
    for name in _SIZES:
        limit = len(layers) if name == "num_layers" else max(numbers, _SMALL)
        largest = _largest(hyper_parameters.get(name))
        if largest > limit:
            raise ValueError(
                f"mLSTMTime: the checkpoint has {name}={largest:.4g}, but weights for {limit} at "
                f"most; it is damaged, take another one."
            )


def _largest(value: Any) -> float:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        return max(map(_largest, value), default=0)
    return float(value) if isinstance(value, int | float) else 0


def check_weights(build: Callable[[], nn.Module], weights: Mapping[str, Tensor]) -> None:
    """Build a model without memory, and refuse weights that do not fit it or are not finite.

    Parameters
    ----------
    build : callable
        Makes the model. Tensors that it creates are on torch's meta device, which has no memory.
    weights : dict of str to Tensor
        What the file holds for it.

    Raises
    ------
    ValueError
        If weights are of another shape or not finite, or too many are missing.
    """
    with warnings.catch_warnings(), torch.device("meta"):
        warnings.simplefilter("ignore")  # it is built once more
        model = build()
    expected = model.state_dict()
    for name, weight in expected.items():
        if name in weights and weights[name].shape != weight.shape:
            raise ValueError(
                f"mLSTMTime: the hyper-parameters make {name} of shape {tuple(weight.shape)}, the "
                f"checkpoint has weights of {tuple(weights[name].shape)}; it is damaged, or an "
                f"argument given to load_from_checkpoint does not fit it."
            )
    created = sum(weight.numel() for weight in expected.values() if weight.is_meta)
    held = sum(weight.numel() for weight in weights.values())
    if created > _TIMES * held + _FREE:
        raise ValueError(
            f"mLSTMTime: the hyper-parameters make {created} weights, the checkpoint has {held}; "
            f"it is damaged, take another one."
        )
    check_finite(model, weights)


def check_finite(model: nn.Module, weights: Mapping[str, Any]) -> None:
    """Refuse weights that are not finite; buffers may be, as masks are.

    Parameters
    ----------
    model : nn.Module
        Model that they are for.
    weights : dict of str to Tensor
        State of the model.

    Raises
    ------
    ValueError
        If a weight is NaN or infinite.
    """
    for name, _ in model.named_parameters(remove_duplicate=False):
        weight = weights.get(name)
        if isinstance(weight, Tensor) and not weight.isfinite().all():
            raise ValueError(
                f"mLSTMTime: the checkpoint has weights that are not finite, in {name}; take one "
                f"from before the training diverged."
            )
