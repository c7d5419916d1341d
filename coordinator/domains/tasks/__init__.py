"""Tasks, executions and their files."""
