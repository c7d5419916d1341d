"""Computers that are Docker containers."""
