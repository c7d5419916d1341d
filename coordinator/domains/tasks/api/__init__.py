"""Endpoints of tasks, executions and files."""

from coordinator.domains.tasks.api.executions import executions
from coordinator.domains.tasks.api.files import files
from coordinator.domains.tasks.api.nodes import node_files
from coordinator.domains.tasks.api.tasks import tasks

__all__ = ["executions", "files", "node_files", "tasks"]
