"""The faults that Longshore promises to survive, tried on real processes and judged from outside."""
