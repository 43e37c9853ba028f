"""The command line: a demo on real data, or the forecast of a user's own table."""
