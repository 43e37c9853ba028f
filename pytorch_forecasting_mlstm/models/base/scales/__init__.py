"""Scales of histories that have no spread of their own."""
