"""Effects of the calendar on the values of a series, which are taken off before training."""
