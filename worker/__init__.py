"""The node: what runs on a worker host."""
