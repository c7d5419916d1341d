"""Principals, how they prove who they are, and what their roles let them do."""
