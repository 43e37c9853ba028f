"""Checkpoints that hold plain data and are loaded without running any code."""
