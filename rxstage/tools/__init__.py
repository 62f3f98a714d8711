"""Tools that a model may call."""

from rxstage.tools.approval import Approval
from rxstage.tools.context import Progress, ToolContext, ToolError
from rxstage.tools.repetition import Repetition
from rxstage.tools.source import ToolSource, ToolSourceError
from rxstage.tools.tool import Tool, tool
from rxstage.tools.toolbox import Toolbox, ToolboxStatistics

__all__ = [
    "Approval",
    "Progress",
    "Repetition",
    "Tool",
    "ToolContext",
    "ToolError",
    "ToolSource",
    "ToolSourceError",
    "Toolbox",
    "ToolboxStatistics",
    "tool",
]
