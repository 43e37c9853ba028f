"""What a loss asks of a model: copies, output sizes, and the way back to the data."""
