"""Computers that are processes of this machine: in a bubblewrap sandbox, or without one where that is allowed."""
