"""What crosses the wire between a node and the coordinator."""
