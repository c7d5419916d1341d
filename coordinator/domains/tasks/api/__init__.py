"""Endpoints of tasks, executions and files."""

from coordinator.domains.tasks.api.dead_letters import dead_letters
from coordinator.domains.tasks.api.executions import executions
from coordinator.domains.tasks.api.files import files
from coordinator.domains.tasks.api.nodes import node_files
from coordinator.domains.tasks.api.tasks import tasks

__all__ = ["dead_letters", "executions", "files", "node_files", "tasks"]
