"""The classes and functions that a file may name: harmless, whatever state they are given."""

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, TypeVar, get_origin

import sklearn.preprocessing
import torch
import torchmetrics
from pytorch_forecasting import metrics
from sklearn.base import BaseEstimator
from torch import distributions, nn
from torch.nn import functional
from torch.serialization import get_safe_globals
from torchmetrics.metric import jit_distributed_available
from torchmetrics.utilities import data as reductions

from .._upstream import MQF2_MODULE, ImplicitQuantileNetwork, base_metrics, encoders

__all__ = ["is_default_global", "qualified_name", "safe_class", "safe_globals"]

#: Functions that transformations and losses are made of: each maps tensors to a tensor.
_TORCH_FUNCTIONS = (
    "abs arcsinh arctanh asinh atanh clamp cosh erf erfinv exp exp2 expm1 log log10 log1p log2 "
    "logit neg pow reciprocal relu round rsqrt sigmoid sign sin sinh sqrt square tan tanh"
)
_FUNCTIONALS = "elu gelu leaky_relu logsigmoid relu sigmoid silu softplus softsign tanh"
_MODULES = (
    "Dropout ELU GELU HuberLoss Identity L1Loss LayerNorm LeakyReLU Linear ModuleDict ModuleList "
    "MSELoss ParameterDict ParameterList PReLU ReLU Sequential Sigmoid SiLU SmoothL1Loss Softplus "
    "Tanh"
)
_TRANSFORMS = (
    "AbsTransform AffineTransform ComposeTransform ExpTransform PowerTransform SigmoidTransform "
    "SoftplusTransform TanhTransform"
)
_SCALERS = "MaxAbsScaler MinMaxScaler RobustScaler StandardScaler"
_PACKAGE_CLASSES: list[type] = []  # of this package, which their modules add
_Class = TypeVar("_Class", bound=type)


def safe_class(kind: _Class) -> _Class:
    """Add a class of this package, which is harmless whatever state it is given, to the list."""
    _PACKAGE_CLASSES.append(kind)
    _default_globals.cache_clear()
    _names_by_id.cache_clear()
    return kind


def safe_globals() -> dict[str, Any]:
    """Return the classes and functions that a file may name, by qualified name.

    These are the list of this module, and what the user has added by
    ``torch.serialization.add_safe_globals`` or ``safe_globals``.
    """
    items = dict(_default_globals())
    for entry in get_safe_globals():
        # torch also accepts pairs of an object and the name that files have for it
        item, name = entry if isinstance(entry, tuple) else (entry, qualified_name(entry))
        items[name] = item
    return items


def qualified_name(item: Any) -> str:
    """Return the name by which a file refers to a class or function."""
    listed = _names_by_id().get(id(item))
    return f"{item.__module__}.{item.__qualname__}" if listed is None else listed


def is_default_global(item: Any) -> bool:
    """Return whether a class or function is on the list of this module."""
    return id(item) in _names_by_id()


@cache
def _default_globals() -> dict[str, Any]:
    classes = [
        *_classes(metrics, torchmetrics.Metric),
        *_classes(base_metrics, torchmetrics.Metric),
        *_classes(torchmetrics.regression, torchmetrics.Metric),
        *_classes(torchmetrics.classification, torchmetrics.Metric),
        *_classes(torchmetrics.aggregation, torchmetrics.Metric),
        torchmetrics.MetricCollection,
        *_PACKAGE_CLASSES,
        *_classes(encoders, BaseEstimator, "pytorch_forecasting."),
        *_classes(encoders, distributions.Transform, "pytorch_forecasting."),
        *(getattr(nn, name) for name in _MODULES.split()),
        *(getattr(distributions, name) for name in _TRANSFORMS.split()),
        *(getattr(sklearn.preprocessing, name) for name in _SCALERS.split()),
        *_loss_networks(),
    ]
    items = {f"{item.__module__}.{item.__qualname__}": item for item in classes}
    items |= {f"torch.{name}": getattr(torch, name) for name in _TORCH_FUNCTIONS.split()}
    items |= {
        f"torch.nn.functional.{name}": getattr(functional, name) for name in _FUNCTIONALS.split()
    }
    reduce = [item for name, item in vars(reductions).items() if name.startswith("dim_zero_")]
    for function in (*_functions(encoders), *reduce, jit_distributed_available):
        items[f"{function.__module__}.{function.__qualname__}"] = function
    return items


@cache
def _names_by_id() -> dict[int, str]:
    return {id(item): name for name, item in _default_globals().items()}


def _classes(
    module: ModuleType, base: type | tuple[type, ...], package: str = ""
) -> Iterator[type]:
    for item in vars(module).values():
        # in Python 3.10, inspect.isclass(tuple[int]) is True
        if not inspect.isclass(item) or get_origin(item) is not None:
            continue
        if issubclass(item, base) and item.__module__.startswith(package):
            yield item


def _loss_networks() -> Iterator[Any]:
    """Yield what losses with a network consist of: implicit quantiles, and MQF2 if installed."""
    yield ImplicitQuantileNetwork
    if find_spec("cpflows") is not None:
        for name in ("cpflows.flows", "cpflows.icnn", MQF2_MODULE):
            module = import_module(name)
            yield from _classes(module, (nn.Module, distributions.Distribution))
        yield from _functions(import_module("cpflows.logdet_estimators"))


def _functions(module: ModuleType) -> Iterator[Any]:
    for item in vars(module).values():
        if inspect.isfunction(item) and item.__module__ == module.__name__:
            yield item
