"""Agents and what they may use."""
