"""Secrets at rest: the keys that seal them."""
