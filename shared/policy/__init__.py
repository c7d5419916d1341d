"""Decisions, pure: facts in, a verdict out. No clock, no I/O, no randomness of their own."""
