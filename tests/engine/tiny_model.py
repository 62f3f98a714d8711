# mypy: disable-error-code="import-not-found"
"""Makes a language model of 120,000 weights that knows the lessons by heart, in seconds on one core.

Runs in the engine's interpreter, which has torch and transformers; the tests' own need not have them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from random import Random
from typing import Any, Final

import torch
from lessons import TOOL, dialogue
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

__all__ = ["make"]

_SEED: Final = 0
_STEPS: Final = 1000  # it takes 300 to 500; another processor rounds otherwise, and may take more
_BATCH: Final = 8
_TURNS: Final = 3
_RATE: Final = 5e-3
_EXAM: Final = 25  # dialogues of each length
_SURE: Final = 0.5  # loss of a token that is more probable than all others together, with something to spare

_END, _PAD = "<|im_end|>", "<|endoftext|>"
_ASSISTANT: Final = "<|im_start|>assistant\n"
_MARKS: Final = ["<|im_start|>", "<think>", "</think>", "<tool_call>", "</tool_call>"]
_TEMPLATE: Final = (
    "{% if tools %}{{ '<|im_start|>tools\n' }}{% for tool in tools %}{{ tool.function.name + '\n' }}{% endfor %}"
    "{{ '<|im_end|>\n' }}{% endif %}"
    "{% for message in messages %}{{ '<|im_start|>' + message.role + '\n' + message.content }}"
    "{% for call in message.tool_calls or [] %}{{ ('' if loop.first else '\n') + '<tool_call>\n'"
    " + ({'name': call.function.name, 'arguments': call.function.arguments} | tojson) + '\n</tool_call>' }}"
    "{% endfor %}{{ '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_NOT_ITS_OWN: Final = -100  # label of a token that others say

_Dialogue = tuple[list[dict[str, Any]], bool]


def make(directory: Path) -> int:
    """Train the model and leave it in `directory`, with its tokenizer and chat template.

    Returns:
        The number of steps that it took.

    Raises:
        RuntimeError: it does not know its lessons after all the steps that are allowed.
    """
    torch.manual_seed(_SEED)
    tokenizer = _tokenizer(_texts(dialogue(Random(seed), _TURNS)[0] for seed in range(300)))
    model = _model(tokenizer)
    steps = _train(model, tokenizer)
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return steps


def _texts(dialogues: Iterable[list[dict[str, Any]]]) -> Iterator[str]:
    for messages in dialogues:
        for message in messages:
            yield message["content"]
            yield from (json.dumps(call["function"]) for call in message.get("tool_calls", ()))


def _tokenizer(texts: Iterator[str]) -> PreTrainedTokenizerFast:
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1000, special_tokens=[_PAD, _END, *_MARKS], initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, eos_token=_END, pad_token=_PAD)
    tokenizer.chat_template = _TEMPLATE
    return tokenizer


def _model(tokenizer: PreTrainedTokenizerFast) -> Qwen3ForCausalLM:
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        head_dim=16,
        initializer_range=0.1,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return Qwen3ForCausalLM(config)


def _train(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast) -> int:
    random = Random(_SEED)
    examiner = Random("exam")
    exam = [_batch(tokenizer, [dialogue(examiner, turns + 1) for _ in range(_EXAM)]) for turns in range(_TURNS)]
    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, _pace)
    for step in range(1, _STEPS + 1):
        turns = random.randint(1, _TURNS)
        loss = _losses(model, *_batch(tokenizer, [dialogue(random, turns) for _ in range(_BATCH)])).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step >= 200 and step % 20 == 0:
            with torch.no_grad():
                if all(_losses(model, *part).max() < _SURE for part in reversed(exam)):
                    return step
    raise RuntimeError(f"the model has not learned its lessons in {_STEPS} steps")


def _pace(step: int) -> float:
    """The share of the learning rate: warmed up, and halved again and again after a while."""
    halved = float(0.5 ** (max(0, step - 150) / 75))
    return min(step / 30, 1.0) * max(0.1, halved)


def _batch(tokenizer: PreTrainedTokenizerFast, dialogues: list[_Dialogue]) -> tuple[Any, Any]:
    """Tokens, and the same as labels where the model has to say them."""
    rows, labels = [], []
    for messages, offered in dialogues:
        tools = [{"type": "function", "function": TOOL}] if offered else None
        first, *parts = tokenizer.apply_chat_template(messages, tools=tools, tokenize=False).split(_ASSISTANT)
        row: list[int] = tokenizer.encode(first)
        label = [_NOT_ITS_OWN] * len(row)
        for part in parts:
            said, end, others = part.partition(_END)
            for text, own in ((_ASSISTANT, False), (said + end, True), (others, False)):
                tokens = tokenizer.encode(text)
                row += tokens
                label += tokens if own else [_NOT_ITS_OWN] * len(tokens)
        rows.append(torch.tensor(row))
        labels.append(torch.tensor(label))
    pad = torch.nn.utils.rnn.pad_sequence
    return pad(rows, batch_first=True), pad(labels, batch_first=True, padding_value=_NOT_ITS_OWN)


def _losses(model: Qwen3ForCausalLM, rows: Any, labels: Any) -> Any:
    """The loss of each token that is the model's own; nothing is computed for the others."""
    wanted = labels[:, 1:]
    own = wanted != _NOT_ITS_OWN
    states = model.model(input_ids=rows).last_hidden_state[:, :-1][own]
    return torch.nn.functional.cross_entropy(model.lm_head(states), wanted[own], reduction="none")
