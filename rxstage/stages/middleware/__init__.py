"""Existing code as a stage: middlewares, LangChain Runnables, Processors of genai-processors, async generators."""

from rxstage.stages.middleware.adapter import MiddlewareAdapter, wrap_middleware
from rxstage.stages.middleware.turn import MiddlewareContext, MiddlewareResult

__all__ = ["MiddlewareAdapter", "MiddlewareContext", "MiddlewareResult", "wrap_middleware"]
