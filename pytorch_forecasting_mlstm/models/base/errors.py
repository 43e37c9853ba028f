"""What pytorch-forecasting raises on data that it cannot process."""

__all__ = ["UPSTREAM_ERRORS"]

#: The types of these exceptions: they come from deep inside pandas, NumPy, scikit-learn and torch.
UPSTREAM_ERRORS = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
