"""What can go wrong in an answer beside the call itself."""

from __future__ import annotations

from rxstage.errors import RxStageError

__all__ = ["AnswerWithdrawn", "CostLimitExceeded", "InvalidOutput", "ToolLoop"]


class AnswerWithdrawn(RxStageError):
    """What a turn has streamed so far is void: the call broke off, and the answer begins again.

    It travels as a `Failure` between the pieces of text.

    Attributes:
        text: what is void.
    """

    def __init__(self, text: str, cause: BaseException | None = None) -> None:
        super().__init__(f"the {len(text)} characters streamed so far are void, the answer begins again: {cause}")
        self.text = text
        self.__cause__ = cause


class CostLimitExceeded(RxStageError):
    """The calls of an execution or a conversation have cost what they may; no further one is made."""


class ToolLoop(RxStageError):
    """A model asked for tools again and again, without an answer."""


class InvalidOutput(RxStageError):
    """A structured answer does not have the form that was asked for, however often the model was told."""
