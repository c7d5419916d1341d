"""The typed HTTP client: for nodes today, for people's programs as it grows."""
