"""Batches for the latency losses. An answer is a string: `x` a text token, `c` a call token, `.` the turn end."""

import torch

EOS, VOCAB, PROMPT = 2, 16, 3
OPENING = (6, 15)
"""The ids that open a call: 6 is the first of every call below."""


def answer_ids(answer):
    """The ids of an answer: the k-th token of a call is 6, 7, 8, 9, 6, ...; a text token is 10 to 14, by its place."""
    ids, run = [], 0
    for index, kind in enumerate(answer):
        run = run + 1 if kind == "c" else 0
        ids.append({"x": 10 + index % 5, "c": 6 + (run - 1) % 4, ".": EOS}[kind])
    return ids


def prefix_of(answer, size=25):
    """The first ids of the first call, as the annotation finds them."""
    if "c" not in answer:
        return []
    start = answer.index("c")
    run = len(answer) - start - len(answer[start:].lstrip("c"))
    return answer_ids(answer)[start : start + min(run, size)]


def batch_of(*answers, should=None, present=None, prefixes=None, length=None, prompt=PROMPT, rows=None):
    """A batch as the collation makes it. By default a row needs a call if its answer has one."""
    length = length or max([1, *(prompt + len(answer) for answer in answers)])
    size = len(answers)
    labels = torch.full((size, length), -100)
    calls = torch.zeros(size, length, dtype=torch.bool)
    prefixes = [prefix_of(answer) for answer in answers] if prefixes is None else prefixes
    width = max([1, *map(len, prefixes)])
    padded = [list(prefix) + [-100] * (width - len(prefix)) for prefix in prefixes]
    for b, answer in enumerate(answers):
        for i, (kind, token) in enumerate(zip(answer, answer_ids(answer), strict=True)):
            if 0 <= prompt - 1 + i < length:
                labels[b, prompt - 1 + i] = token
                calls[b, prompt - 1 + i] = kind == "c"
    batch = {
        "labels": labels,
        "response_mask": labels != -100,
        "tool_call_mask": calls,
        "response_start": torch.full((size,), prompt),
        "response_length": torch.tensor([len(answer) for answer in answers], dtype=torch.int64),
        "tool_should_be_used": torch.tensor(
            should or ["c" in answer for answer in answers], dtype=torch.bool
        ),
        "required_fields_present": torch.tensor(present or [True] * size, dtype=torch.bool),
        "teacher_prefix_ids": torch.tensor(padded, dtype=torch.int64).reshape(size, width),
    }
    return batch if rows is None else batch | {"row": torch.tensor(rows)}


def part_of(batch, rows):
    """Some rows of a batch."""
    return {name: value[rows] for name, value in batch.items()}


def student(batch, seed=0, dtype=torch.float64, scale=2.0):
    """Random logits [B,T,V]."""
    generator = torch.Generator().manual_seed(seed)
    shape = (*batch["labels"].shape, VOCAB)
    return (torch.randn(shape, generator=generator, dtype=torch.float64) * scale).to(dtype).requires_grad_()
