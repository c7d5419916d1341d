"""What tasks, executions and files do; other domains use these modules and nothing below them."""
