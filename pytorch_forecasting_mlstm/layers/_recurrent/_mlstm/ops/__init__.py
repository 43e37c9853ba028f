"""The operations behind the layer and the functions: the recurrence with and without gates."""
