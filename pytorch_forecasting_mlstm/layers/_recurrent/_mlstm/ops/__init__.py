"""The operations behind layer and functions: the recurrence, with and without its gates."""
