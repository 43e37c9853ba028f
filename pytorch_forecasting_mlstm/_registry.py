"""Make this package's classes known to pytorch-forecasting, and take that back."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["register", "unregister"]

_MODELS = "pytorch_forecasting.models"
_CELL = "mLSTMCell"
_STOCK_CELL = "pytorch_forecasting.layers._recurrent._mlstm.cell"
#: The host's modules that name its mLSTM cell: where it is defined, used and re-exported.
_CELL_HOLDERS = (
    _STOCK_CELL,
    "pytorch_forecasting.layers._recurrent._mlstm.layer",
    "pytorch_forecasting.layers._recurrent._mlstm",
    "pytorch_forecasting.layers._recurrent",
    "pytorch_forecasting.layers",
)

#: The host's own cell, while this package's stands in for it.
_stock_cell: type | None = None


def register(*, replace_stock_cell: bool = False) -> None:
    """Make ``mLSTMTime`` a model of pytorch-forecasting for the rest of the process.

    Afterwards ``from pytorch_forecasting.models import mLSTMTime`` works, and the host's
    ``all_objects()`` lists ``mLSTMTime_pkg``, also where it had been called before. Without this
    call nothing in the host is changed. Calling it again does no harm.

    Parameters
    ----------
    replace_stock_cell : bool, default False
        Put this package's :class:`~pytorch_forecasting_mlstm.mLSTMCell` in the place of the host's
        as well, wherever the host names it. Its ``mLSTMLayer``, ``mLSTMNetwork`` and ``xLSTMTime``
        use it when they are built afterwards. False leaves the cell as it is, replaced or not.

    Raises
    ------
    RuntimeError
        If one of these names holds something that neither the host nor this package put there.
        Nothing is changed then.
    TypeError
        If ``replace_stock_cell`` is not a bool.

    Notes
    -----
    The two cells have different parameters: a stock cell's ``state_dict`` does not fit this
    package's, and while the stock cell is replaced its instances cannot be pickled.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import register, unregister
    >>> register()
    >>> from pytorch_forecasting.models import mLSTMTime
    >>> unregister()
    """
    global _stock_cell
    # imported here, so that reading this module loads neither the host nor the models
    from ._validation import check_bool
    from .layers import mLSTMCell

    check_bool("register", "replace_stock_cell", replace_stock_cell)
    models = import_module(_MODELS)
    ours = _our_models()
    for cls in ours:
        held = getattr(models, cls.__name__, cls)
        if held is not cls:
            raise _taken(models, cls.__name__, held, "free")
    holders = [import_module(name) for name in _CELL_HOLDERS] if replace_stock_cell else []
    for holder in holders:
        held = getattr(holder, _CELL)
        if held is not mLSTMCell and getattr(held, "__module__", None) != _STOCK_CELL:
            raise _taken(holder, _CELL, held, "the host's own cell")

    for cls in ours:
        setattr(models, cls.__name__, cls)
    model = ours[0].__name__  # as for the host's own models, the container is not in __all__
    if model not in models.__all__:
        models.__all__.append(model)
    for holder in holders:
        if getattr(holder, _CELL) is not mLSTMCell:
            _stock_cell = getattr(holder, _CELL)
            setattr(holder, _CELL, mLSTMCell)
    _forget_listing()


def unregister() -> None:
    """Undo :func:`register`: every name in pytorch-forecasting is as it was before.

    Objects already built keep the classes that they were built from. A name that has been given to
    something else since is left alone, and without a call of :func:`register` nothing happens.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import register, unregister
    >>> register(replace_stock_cell=True)
    >>> unregister()
    >>> from pytorch_forecasting.layers import mLSTMCell
    >>> mLSTMCell.__module__
    'pytorch_forecasting.layers._recurrent._mlstm.cell'
    """
    global _stock_cell
    from .layers import mLSTMCell

    models = import_module(_MODELS)
    for cls in _our_models():
        if vars(models).get(cls.__name__) is cls:
            delattr(models, cls.__name__)
            if cls.__name__ in models.__all__:
                models.__all__.remove(cls.__name__)
    if _stock_cell is not None:
        for holder in map(import_module, _CELL_HOLDERS):
            if getattr(holder, _CELL) is mLSTMCell:
                setattr(holder, _CELL, _stock_cell)
        _stock_cell = None
    _forget_listing()


def _our_models() -> tuple[type, type]:
    """Return the model and its package container."""
    from .models import mLSTMTime, mLSTMTime_pkg

    return mLSTMTime, mLSTMTime_pkg


def _taken(holder: ModuleType, name: str, held: object, expected: str) -> RuntimeError:
    """Build the error for a name that belongs to somebody else."""
    return RuntimeError(
        f"register: {holder.__name__}.{name} must be {expected} or this package's class, "
        f"got {held!r}. Undo whatever set it, or go without register() and import "
        f"{name} from pytorch_forecasting_mlstm."
    )


def _forget_listing() -> None:
    """Let the host's ``all_objects`` look again: scikit-base keeps what its first walk found."""
    from skbase.lookup import _lookup

    walk = getattr(_lookup, "_walk_and_retrieve_all_objs", None)
    if walk is not None and hasattr(walk, "cache_clear"):  # else nothing is kept
        walk.cache_clear()
