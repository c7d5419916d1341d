"""Measurements: our path beside a peer's in the same run, told as ratios. Nothing here passes or fails on time."""
