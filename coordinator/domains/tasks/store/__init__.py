"""Queries of the tasks domain."""
