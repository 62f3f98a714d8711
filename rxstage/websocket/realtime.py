"""The events of a realtime API as OpenAI has it: what is sent for elements, and what is told by what comes."""

from __future__ import annotations

import base64
import json
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from rxstage.content import Audio, Data, Message, Text, ToolCall, ToolResult, Usage
from rxstage.conversation import TRANSCRIPT
from rxstage.element import Metadata, StreamElement
from rxstage.errors import RxStageError
from rxstage.priority import Priority
from rxstage.voice.speech import SpeechEnded, SpeechStarted
from rxstage.websocket.playback import Playback

__all__ = ["RATE", "Answer", "Realtime", "RealtimeError", "append_of", "event_of", "greeting", "item_of"]

RATE: Final = 24_000
"""Frames per second [Hz] of the sound in both directions; 16-bit mono."""

_ALIASES: Final = {  # of the time before the interface was settled; compatible servers still use them
    "response.audio.delta": "response.output_audio.delta",
    "response.text.delta": "response.output_text.delta",
    "response.audio_transcript.delta": "response.output_audio_transcript.delta",
}
_FORM: Final = {"type": "audio/pcm", "rate": RATE}
_HARMLESS: Final = frozenset({"response_cancel_not_active", "input_audio_buffer_commit_empty"})
_TRUNCATE: Final = (
    "truncate_"  # begins the ids of events that it may refuse: it has not made the item yet, or forgot it
)
_ROLES: Final = {"user": "input_text", "system": "input_text", "assistant": "output_text"}


class RealtimeError(RxStageError):
    """The service has told of an error; `code` is its own."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(f"{message} ({code})" if code else message)
        self.code = code


class Answer:
    """One turn: what the user said, as far as it is known, and what is answered."""

    __slots__ = ("begun", "calls", "done", "item", "text", "usage", "user", "void", "waits")

    def __init__(self, item: str = "", waits: bool = False) -> None:
        self.item = item  # of the user's speech
        self.waits = waits  # for the transcript of it
        self.user = ""
        self.text = ""
        self.calls: list[ToolCall] = []
        self.usage: Usage | None = None
        self.begun = self.done = self.void = False


class Realtime:
    """What is known of a conversation with a realtime service, from its events.

    Args:
        transcribes: whether the service was asked for transcripts of the user's speech.
        clock: gives the time [s].
    """

    def __init__(self, transcribes: bool, clock: Callable[[], float]) -> None:
        self._transcribes = transcribes
        self._playback = Playback(clock)
        self._answers: deque[Answer] = deque()  # that have not been told in full, oldest first
        self._active = ""  # the response under way
        self._asked = 0  # responses that were asked for and have not begun
        self._skipped = 0  # such that are void already
        self._void: set[str] = set()  # responses that were cut off
        self._started = 0.0
        self._answered = False  # since the user last spoke
        self.speech = False  # the service hears the user speak

    @property
    def answering(self) -> bool:
        """Whether there is a response to be cancelled."""
        return bool(self._active or self._asked)

    @property
    def busy(self) -> bool:
        """Whether something is still to be told."""
        return self.answering or bool(self._answers)

    @property
    def waiting(self) -> bool:
        """Whether an answer is complete and waits for the transcript of what it answers."""
        return bool(self._answers) and self._answers[0].done and self._answers[0].waits

    def ask(self) -> dict[str, Any]:
        """The event that asks for an answer."""
        self._asked += 1
        return {"type": "response.create"}

    def cut(self) -> list[dict[str, Any]]:
        """The user has interrupted: what is being answered is void; what the user has said is not.

        Gives the events that have the service forget what was not played of its answers.
        """
        if self._active:
            self._void.add(self._active)
            self._active = ""
        self._skipped += self._asked
        self._asked = 0
        self._answered = False
        for answer in self._answers:
            if answer.begun:
                answer.void = answer.done = True
        return [
            {
                "type": "conversation.item.truncate",
                "event_id": f"{_TRUNCATE}{index}_{item}",
                "item_id": item,
                "content_index": index,
                "audio_end_ms": played,
            }
            for item, index, played in self._playback.cut()
        ]

    def take(self, event: dict[str, Any]) -> Iterator[StreamElement]:
        """The elements that an event stands for, at once.

        Raises:
            RealtimeError: it tells of an error.
        """
        kind = str(event.get("type", ""))
        response = str(event.get("response_id", "") or (event.get("response") or {}).get("id", ""))
        if response in self._void:
            if kind == "response.done":
                self._void.discard(response)
            return
        match _ALIASES.get(kind, kind):
            case "response.output_audio.delta":
                sound = Audio(base64.b64decode(event["delta"]), RATE)
                if item := event.get("item_id"):
                    self._playback.add(str(item), int(event.get("content_index") or 0), sound.duration)
                yield StreamElement.of(sound)
            case "response.output_text.delta" | "response.output_audio_transcript.delta":
                self._answer().text += event["delta"]
                yield StreamElement.of(event["delta"])
            case "response.created":
                self._begun(response)
            case "response.done":
                self._done(event["response"])
            case "input_audio_buffer.speech_started":
                self.speech = True
                self._started = event.get("audio_start_ms", 0) / 1000
                if self._answered:
                    yield StreamElement.interrupt("speech")
                yield StreamElement.of(Data(SpeechStarted(self._started)))
            case "input_audio_buffer.speech_stopped":
                self.speech = False
                end = event.get("audio_end_ms", 0) / 1000
                yield StreamElement.of(Data(SpeechEnded(end, max(end - self._started, 0.0))))
            case "input_audio_buffer.committed":
                self.speech = False
                self._answers.append(Answer(str(event.get("item_id", "")), self._transcribes))
            case "conversation.item.input_audio_transcription.delta":
                yield _transcript(event.get("delta", ""), "partial")
            case "conversation.item.input_audio_transcription.completed":
                text = event.get("transcript", "").strip()
                self._heard(str(event.get("item_id", "")), text)
                if text:
                    yield _transcript(text, "final")
            case "conversation.item.input_audio_transcription.failed":
                self._heard(str(event.get("item_id", "")), "")
            case "error":
                error = event.get("error") or {}
                if error.get("code") not in _HARMLESS and not str(error.get("event_id") or "").startswith(_TRUNCATE):
                    self._asked = max(self._asked - 1, 0)  # it will not be answered
                    raise RealtimeError(str(error.get("message", "error")), str(error.get("code") or ""))

    def settled(self, late: bool = False) -> Iterator[StreamElement]:
        """What can be told now of turns: the user, the assistant, the end, in this order.

        Args:
            late: the transcript of the oldest turn is not waited for any more.
        """
        while self._answers:
            answer = self._answers[0]
            if answer.waits and not (late and answer.done):
                return
            late = False
            if answer.user:
                yield StreamElement.of(Message.user(answer.user))
                answer.user = ""
            if not answer.done:
                return
            self._answers.popleft()
            if answer.void:
                continue
            calls = tuple(answer.calls)
            if answer.text or calls:
                parts = (Text(answer.text),) if answer.text else ()
                yield StreamElement.of(Message("assistant", parts, tool_calls=calls, usage=answer.usage))
            if calls:
                yield from map(StreamElement.of, calls)  # the turn goes on with their results
            else:
                yield StreamElement.end_of_turn()

    def _answer(self) -> Answer:
        """The one that is being given."""
        for answer in self._answers:
            if not answer.done:
                break
        else:
            answer = Answer()
            self._answers.append(answer)
        answer.begun = True
        return answer

    def _begun(self, response: str) -> None:
        if self._skipped:
            self._skipped -= 1
            self._void.add(response)
            return
        self._asked = max(self._asked - 1, 0)
        self._active, self._answered = response, True
        self._answer()

    def _heard(self, item: str, text: str) -> None:
        for answer in self._answers:
            if answer.waits and answer.item in (item, ""):
                answer.waits, answer.user = False, text
                return

    def _done(self, response: dict[str, Any]) -> None:
        self._active = ""
        answer = self._answer()
        answer.done = True
        status = response.get("status")
        if status == "cancelled":  # by the service, as the user spoke
            answer.void = True
            return
        used = response.get("usage")
        if used:
            answer.usage = Usage(int(used.get("input_tokens") or 0), int(used.get("output_tokens") or 0))
        answer.calls = [
            ToolCall(item.get("name", ""), _arguments(item.get("arguments")), item.get("call_id", ""))
            for item in response.get("output") or ()
            if item.get("type") == "function_call"
        ]
        if status == "failed":
            error = (response.get("status_details") or {}).get("error") or {}
            raise RealtimeError(str(error.get("message", "the response failed")), str(error.get("code") or ""))


def item_of(content: Message | Text | ToolResult) -> dict[str, Any]:
    """The event that puts something into the conversation."""
    if isinstance(content, ToolResult):
        value = content.value if isinstance(content.value, str) else json.dumps(content.value, default=str)
        item: dict[str, Any] = {"type": "function_call_output", "call_id": content.call_id, "output": value}
    else:
        role = content.role if isinstance(content, Message) else "user"
        part = {"type": _ROLES.get(role, "input_text"), "text": content.text}
        item = {"type": "message", "role": role, "content": [part]}
    return {"type": "conversation.item.create", "item": item}


def greeting(
    *,
    service_turns: bool,
    transcription: str | None,
    voice: str | None,
    output: str,
    instructions: str,
    tools: tuple[dict[str, Any], ...],
    more: dict[str, Any],
) -> dict[str, Any]:
    """The event that begins a session."""
    heard: dict[str, Any] = {"format": _FORM, "turn_detection": {"type": "server_vad"} if service_turns else None}
    if transcription is not None:
        heard["transcription"] = {"model": transcription}
    spoken: dict[str, Any] = {"format": _FORM}
    if voice is not None:
        spoken["voice"] = voice
    session: dict[str, Any] = {
        "type": "realtime",
        "output_modalities": [output],
        "audio": {"input": heard, "output": spoken},
    }
    if instructions:
        session["instructions"] = instructions
    if tools:
        session["tools"] = list(tools)
    return {"type": "session.update", "session": {**session, **more}}


def append_of(frame: Audio) -> dict[str, Any]:
    """The event that sends sound."""
    return {"type": "input_audio_buffer.append", "audio": base64.b64encode(frame.samples).decode()}


def event_of(frame: str | bytes) -> dict[str, Any]:
    """The event in a frame; one that tells of an error, where there is none in it."""
    try:
        event = json.loads(frame)
    except (ValueError, RecursionError):
        event = None
    return event if isinstance(event, dict) else {"type": "error", "error": {"message": "the service sent no JSON"}}


def _transcript(text: str, state: str) -> StreamElement:
    return StreamElement(Text(text), Metadata({TRANSCRIPT: state}), Priority.LOW)


def _arguments(text: Any) -> dict[str, Any]:
    try:
        tree = json.loads(text or "{}")
    except ValueError:
        return {"": text}
    return tree if isinstance(tree, dict) else {"": tree}
