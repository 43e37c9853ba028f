"""Exceptions of pytorch-forecasting."""

__all__ = ["UPSTREAM_ERRORS"]

#: Exceptions that pytorch-forecasting raises on data that it cannot process. They come from deep
#: inside pandas, NumPy, scikit-learn and torch, hence the many types.
UPSTREAM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
