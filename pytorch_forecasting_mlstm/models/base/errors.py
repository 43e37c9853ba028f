"""The exceptions that pytorch-forecasting raises on data that it cannot process."""

__all__ = ["UPSTREAM_ERRORS"]

#: They come from deep inside pandas, NumPy, scikit-learn and torch, hence the many types.
UPSTREAM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
