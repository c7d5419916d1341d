"""What the leader repairs, one duty a file. Sweeps only repair: nothing waits for them when all goes well."""
