"""Objects of pytorch-forecasting's v2, an interface in the making, which are not supported."""

import inspect
from collections.abc import Callable
from functools import wraps
from typing import Any

__all__ = ["describe_v2", "reject_v2", "without_v2"]

#: Modules of v2 are these, those below them, and all with "v2" in the last part of their names.
_MODULES = (
    "pytorch_forecasting.base._base_pkg",
    "pytorch_forecasting.data.data_module",
    "pytorch_forecasting.models.base._base_object",
)


def describe_v2(value: Any) -> str | None:
    """Return the name of a dataset, data module, model or package class of v2, else None.

    Parameters
    ----------
    value : Any
        An object, a class, or a loader of a dataset. An object of a class that derives from one of
        v2 is of v2, too.

    Examples
    --------
    >>> from pytorch_forecasting.data import TimeSeries, TimeSeriesDataSet
    >>> describe_v2(TimeSeries), describe_v2(TimeSeriesDataSet)
    ('TimeSeries', None)
    """
    kind = value if inspect.isclass(value) else type(value)
    if any(map(_is_of_v2, inspect.getmro(kind))):
        return kind.__name__
    dataset = getattr(value, "dataset", None) if hasattr(value, "batch_sampler") else None
    if dataset is not None and any(map(_is_of_v2, type(dataset).__mro__)):
        return f"a loader of {type(dataset).__name__}"
    return None


def _is_of_v2(cls: type) -> bool:
    module = cls.__module__
    if not module.startswith("pytorch_forecasting."):
        return False
    if module == "pytorch_forecasting.models.base._base_object":
        return "V2" in cls.__name__  # both versions are in this module
    below = any(module == name or module.startswith(f"{name}.") for name in _MODULES)
    return below or "v2" in module.rpartition(".")[2].split("_")


def reject_v2(value: Any, caller: str, argument: str, instead: str) -> None:
    """Raise if an argument is of pytorch-forecasting's v2.

    Parameters
    ----------
    value : Any
        What the user passes.
    caller : str
        Name to begin the message with.
    argument : str
        Name of the argument.
    instead : str
        What it must be, with its article.

    Raises
    ------
    TypeError
        If it is.
    """
    found = describe_v2(value)
    if found is not None:
        raise TypeError(
            f"{caller}: {argument} must be {instead}, got {found} of pytorch-forecasting's v2, "
            f"which is not supported; make a TimeSeriesDataSet from the table, and leave the data "
            f"module and the package classes of v2 out."
        )


def without_v2(caller: str, **instead: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Let a method raise if one of its arguments is of pytorch-forecasting's v2.

    Parameters
    ----------
    caller : str
        Name to begin the message with.
    **instead
        For each argument, what it must be.
    """

    def decorate(method: Callable[..., Any]) -> Callable[..., Any]:
        names = list(inspect.signature(method).parameters)

        @wraps(method)
        def checked(*args: Any, **kwargs: Any) -> Any:
            for name, value in {**dict(zip(names, args, strict=False)), **kwargs}.items():
                if name in instead:
                    reject_v2(value, caller, name, instead[name])
            return method(*args, **kwargs)

        return checked

    return decorate
