"""Limits of times."""

import numpy as np

INT = np.iinfo(np.int64)
