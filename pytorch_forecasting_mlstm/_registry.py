"""Register the classes of this package with pytorch-forecasting, and unregister them."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

__all__ = ["register", "unregister"]

_CELL = "mLSTMCell"

#: The cell of pytorch-forecasting while the cell of this package replaces it.
_stock_cell: type | None = None


def register(*, replace_stock_cell: bool = False) -> None:
    """Make ``mLSTMTime`` a model of pytorch-forecasting for the rest of the process.

    Afterwards ``from pytorch_forecasting.models import mLSTMTime`` works, and ``all_objects()`` of
    pytorch-forecasting lists ``mLSTMTime_pkg``, even if it was called before. Without this call
    nothing in pytorch-forecasting is changed. Calling it again does no harm.

    Parameters
    ----------
    replace_stock_cell : bool, default False
        Whether to also replace the mLSTM cell of pytorch-forecasting by this package's
        :class:`~pytorch_forecasting_mlstm.mLSTMCell`. The ``mLSTMLayer``, ``mLSTMNetwork`` and
        ``xLSTMTime`` of pytorch-forecasting use it if they are built afterwards. False leaves the
        cell as it is, replaced or not.

    Raises
    ------
    RuntimeError
        If one of these names refers to something that is neither pytorch-forecasting's nor this
        package's. In this case nothing is changed.
    TypeError
        If ``replace_stock_cell`` is not a bool.

    Notes
    -----
    The two cells have different parameters, so the ``state_dict`` of one does not fit the other.
    While the cell of pytorch-forecasting is replaced, its instances cannot be pickled.

    Examples
    --------
    >>> from pytorch_forecasting_mlstm import register, unregister
    >>> register()
    >>> from pytorch_forecasting.models import mLSTMTime
    >>> unregister()
    """
    global _stock_cell
    # Imported here, so that importing this module loads neither pytorch-forecasting nor the models.
    from ._upstream import CELL_MODULES, MODELS
    from ._validation import check_bool
    from .layers import mLSTMCell

    check_bool("register", "replace_stock_cell", replace_stock_cell)
    models = import_module(MODELS)
    registered = _models_to_register()
    for cls in registered:
        current = getattr(models, cls.__name__, cls)
        if current is not cls:
            raise _name_conflict(models, cls.__name__, current, "free")
    cell_modules = [import_module(name) for name in CELL_MODULES] if replace_stock_cell else []
    for module in cell_modules:
        current = getattr(module, _CELL)
        if current is not mLSTMCell and getattr(current, "__module__", None) != CELL_MODULES[0]:
            raise _name_conflict(module, _CELL, current, "pytorch-forecasting's own cell")

    for cls in registered:
        setattr(models, cls.__name__, cls)
    model = registered[0].__name__  # pytorch-forecasting lists no package containers in __all__
    if model not in models.__all__:
        models.__all__.append(model)
    for module in cell_modules:
        if getattr(module, _CELL) is not mLSTMCell:
            _stock_cell = getattr(module, _CELL)
            setattr(module, _CELL, mLSTMCell)
    _clear_lookup_cache()


def unregister() -> None:
    """Undo :func:`register`: restore every name in pytorch-forecasting.

    Objects that exist keep their classes. A name that was assigned to something else in the
    meantime is left alone. Without a previous :func:`register` nothing happens.

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
    from ._upstream import CELL_MODULES, MODELS
    from .layers import mLSTMCell

    models = import_module(MODELS)
    for cls in _models_to_register():
        if vars(models).get(cls.__name__) is cls:
            delattr(models, cls.__name__)
            if cls.__name__ in models.__all__:
                models.__all__.remove(cls.__name__)
    if _stock_cell is not None:
        for module in map(import_module, CELL_MODULES):
            if getattr(module, _CELL) is mLSTMCell:
                setattr(module, _CELL, _stock_cell)
        _stock_cell = None
    _clear_lookup_cache()


def _models_to_register() -> tuple[type, type]:
    """Return the model and its package container."""
    from .models import mLSTMTime, mLSTMTime_pkg

    return mLSTMTime, mLSTMTime_pkg


def _name_conflict(module: ModuleType, name: str, actual: object, expected: str) -> RuntimeError:
    """Build the error for a name that refers to something else."""
    return RuntimeError(
        f"register: {module.__name__}.{name} must be {expected} or this package's class, "
        f"got {actual!r}. Undo whatever set it, or do not call register() and import "
        f"{name} from pytorch_forecasting_mlstm."
    )


def _clear_lookup_cache() -> None:
    """Let ``all_objects`` search again: scikit-base caches the result of its first search."""
    from skbase.lookup import _lookup

    walk = getattr(_lookup, "_walk_and_retrieve_all_objs", None)
    if walk is not None and hasattr(walk, "cache_clear"):  # otherwise nothing is cached
        walk.cache_clear()
