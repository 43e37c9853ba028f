"""Support for all losses: copies, output sizes, and the scale of the data."""
