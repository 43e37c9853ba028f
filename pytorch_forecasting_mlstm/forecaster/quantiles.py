"""The quantiles that are forecast."""

QUANTILES = (0.02, 0.1, 0.25, 0.5, 0.75, 0.9, 0.98)
INTERVAL = (0.1, 0.9)  # its coverage is measured
MEDIAN = QUANTILES.index(0.5)
QUANTILE_NAMES = tuple(f"q{level:g}" for level in QUANTILES)  # as `mLSTMTime.forecast` names them
