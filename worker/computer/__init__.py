"""Computers: isolated machines for jobs, made by drivers that keep one contract."""
