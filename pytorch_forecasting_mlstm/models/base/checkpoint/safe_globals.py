"""What a checkpoint may name: classes and functions known to do no harm, whatever their state."""

import inspect
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any, get_origin

import sklearn.preprocessing
import torch
import torchmetrics
from pytorch_forecasting import metrics
from pytorch_forecasting.data import encoders
from pytorch_forecasting.metrics.base_metrics import _base_metrics
from pytorch_forecasting.metrics.distributions import ImplicitQuantileNetwork
from sklearn.base import BaseEstimator
from torch import distributions, nn
from torch.nn import functional
from torch.serialization import get_safe_globals
from torchmetrics.metric import jit_distributed_available
from torchmetrics.utilities import data as reductions

__all__ = ["allowed", "is_listed", "path_of"]

#: Functions of transformations and of parts of losses: each maps tensors to a tensor.
_TORCH_FUNCTIONS = (
    "abs arcsinh arctanh asinh atanh clamp cosh erf erfinv exp exp2 expm1 log log10 log1p log2 "
    "logit neg pow reciprocal relu round rsqrt sigmoid sign sin sinh sqrt square tan tanh"
)
_FUNCTIONALS = "elu gelu leaky_relu logsigmoid relu sigmoid silu softplus softsign tanh"
_MODULES = (
    "Dropout ELU GELU Identity LayerNorm LeakyReLU Linear ModuleDict ModuleList ParameterDict "
    "ParameterList PReLU ReLU Sequential Sigmoid SiLU Softplus Tanh"
)
_TRANSFORMS = (
    "AbsTransform AffineTransform ComposeTransform ExpTransform PowerTransform SigmoidTransform "
    "SoftplusTransform TanhTransform"
)
_SCALERS = "MaxAbsScaler MinMaxScaler RobustScaler StandardScaler"


def allowed() -> dict[str, Any]:
    """Return all that a checkpoint may name, by path.

    Besides the list of this module, what the user has allowed by
    ``torch.serialization.add_safe_globals`` or ``safe_globals``.
    """
    names = dict(_known())
    for item in get_safe_globals():
        # torch takes pairs, too: an object, and the path that the file has for it
        given, path = item if isinstance(item, tuple) else (item, path_of(item))
        names[path] = given
    return names


def path_of(item: Any) -> str:
    """Return the path of a class or function."""
    listed = _paths().get(id(item))
    return f"{item.__module__}.{item.__qualname__}" if listed is None else listed


def is_listed(item: Any) -> bool:
    """Return whether a class or function is on the list of this module, whoever else allows it."""
    return id(item) in _paths()


@cache
def _known() -> dict[str, Any]:
    classes = [
        *_classes(metrics, torchmetrics.Metric),
        *_classes(_base_metrics, torchmetrics.Metric),
        *_classes(torchmetrics.regression, torchmetrics.Metric),
        *_classes(torchmetrics.classification, torchmetrics.Metric),
        *_classes(torchmetrics.aggregation, torchmetrics.Metric),
        torchmetrics.MetricCollection,
        *_classes(encoders, BaseEstimator, "pytorch_forecasting."),
        *_classes(encoders, distributions.Transform, "pytorch_forecasting."),
        *(getattr(nn, name) for name in _MODULES.split()),
        *(getattr(distributions, name) for name in _TRANSFORMS.split()),
        *(getattr(sklearn.preprocessing, name) for name in _SCALERS.split()),
        *_quantile_networks(),
    ]
    known = {f"{item.__module__}.{item.__qualname__}": item for item in classes}
    known |= {f"torch.{name}": getattr(torch, name) for name in _TORCH_FUNCTIONS.split()}
    known |= {
        f"torch.nn.functional.{name}": getattr(functional, name) for name in _FUNCTIONALS.split()
    }
    combine = [item for name, item in vars(reductions).items() if name.startswith("dim_zero_")]
    for function in (*_functions(encoders), *combine, jit_distributed_available):
        known[f"{function.__module__}.{function.__qualname__}"] = function
    return known


@cache
def _paths() -> dict[int, str]:
    return {id(item): path for path, item in _known().items()}


def _classes(
    module: ModuleType, base: type | tuple[type, ...], package: str = ""
) -> Iterator[type]:
    for item in vars(module).values():
        # to Python 3.10, tuple[int] is a class as well
        if not inspect.isclass(item) or get_origin(item) is not None:
            continue
        if issubclass(item, base) and item.__module__.startswith(package):
            yield item


def _quantile_networks() -> Iterator[Any]:
    """Parts of the losses that hold a network: implicit quantiles, and MQF2 if it is installed."""
    yield ImplicitQuantileNetwork
    if find_spec("cpflows") is not None:
        for name in ("cpflows.flows", "cpflows.icnn", "pytorch_forecasting.metrics._mqf2_utils"):
            module = import_module(name)
            yield from _classes(module, (nn.Module, distributions.Distribution))
        yield from _functions(import_module("cpflows.logdet_estimators"))


def _functions(module: ModuleType) -> Iterator[Any]:
    for item in vars(module).values():
        if inspect.isfunction(item) and item.__module__ == module.__name__:
            yield item
