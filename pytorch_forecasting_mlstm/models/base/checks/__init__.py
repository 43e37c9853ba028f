"""Checks of datasets, batches and losses, which name the problem and a fix."""
