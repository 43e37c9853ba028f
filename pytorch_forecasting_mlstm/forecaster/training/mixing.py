"""The share of the network in the forecast; the rest is that of the linear forecast."""

from __future__ import annotations

import numpy as np

from ..quantile_loss import quantile_loss

#: Shares to choose from.
_SHARES = (0.25, 0.5, 0.75, 1.0)
_NEARLY_AS_GOOD = 1.01  # times the lowest loss
#: The share without held-out rows.
UNTESTED_SHARE = 0.5


def choose_share(
    actual: np.ndarray, network: np.ndarray, linear: np.ndarray, levels: np.ndarray
) -> float:
    """Return the smallest share of the network whose loss is nearly the lowest.

    Held-out rows are few, and the epoch was chosen on them, too, so that they flatter the network.

    Parameters
    ----------
    actual : numpy.ndarray
        (W, h): truth, NaN where it is missing.
    network, linear : numpy.ndarray
        (W, h, Q): the two forecasts of its quantiles.
    levels : numpy.ndarray
        (Q,): their levels.
    """
    observed = np.isfinite(actual)
    if not observed.any():
        return UNTESTED_SHARE
    actual, network, linear = actual[observed], network[observed], linear[observed]
    losses = {
        share: quantile_loss(actual[:, None] - mix(network, linear, share), levels).mean()
        for share in _SHARES
    }
    limit = _NEARLY_AS_GOOD * min(losses.values())
    # After a training that failed, no loss is a number.
    return next((share for share, loss in losses.items() if loss <= limit), UNTESTED_SHARE)


def mix(network: np.ndarray, linear: np.ndarray, share: float) -> np.ndarray:
    """Return `share` of the network's quantiles, and the rest of the linear ones."""
    return share * network + (1 - share) * linear
