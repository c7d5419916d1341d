"""Nodes: enrolment, approval, heartbeats."""
