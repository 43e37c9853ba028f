"""Series on one time axis, and faults in them."""
