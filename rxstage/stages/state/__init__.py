"""The stages that load a conversation before its first turn, and save it as it goes on."""

from rxstage.stages.state.load import StateStoreLoadStage
from rxstage.stages.state.save import StateStoreSaveStage

__all__ = ["StateStoreLoadStage", "StateStoreSaveStage"]
