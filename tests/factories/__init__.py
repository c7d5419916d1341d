"""Makes what tests need to be there already, one module per domain."""
