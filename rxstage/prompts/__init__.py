"""Prompts as templates, and what of a conversation a model gets to see."""

from rxstage.prompts.budget import TokenBudget
from rxstage.prompts.counting import TokenCounter, estimate_tokens
from rxstage.prompts.errors import MissingVariable, PromptError, PromptLimit, PromptNotFound, TokenBudgetExceeded
from rxstage.prompts.meter import RenderLimits
from rxstage.prompts.prompt import Example, Prompt
from rxstage.prompts.registry import PromptRegistry
from rxstage.prompts.relevance import EmbeddingScorer, LexicalScorer, Scorer
from rxstage.prompts.summary import Summarizer
from rxstage.prompts.template import PromptTemplate

__all__ = [
    "EmbeddingScorer",
    "Example",
    "LexicalScorer",
    "MissingVariable",
    "Prompt",
    "PromptError",
    "PromptLimit",
    "PromptNotFound",
    "PromptRegistry",
    "PromptTemplate",
    "RenderLimits",
    "Scorer",
    "Summarizer",
    "TokenBudget",
    "TokenBudgetExceeded",
    "TokenCounter",
    "estimate_tokens",
]
