"""Small models to quantise: Llama and Qwen3, a layer and a batch whose numbers are known, a loop that trains them."""

import torch
from tiny_models import tiny_llama
from torch import nn

CALM = {"initializer_range": 0.05}
"""Weights as small as trained ones: rounded to int8 the model's hidden states keep a cosine above 0.999."""


def tiny_model(family="llama", *, tied=False, layers=2, **options):
    """A model of two layers whose widths are multiples of 32."""
    settings = CALM | options
    if family == "llama":
        return tiny_llama(layers=layers, tied=tied, **settings)
    from transformers import Qwen3Config, Qwen3ForCausalLM

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "vocab_size": 300}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 32}
    return Qwen3ForCausalLM(Qwen3Config(**sizes, **heads, tie_word_embeddings=tied, **settings)).eval()


def batch(rows=3, width=12, vocab=300):
    """Rows padded on the right, with an answer in their second half."""
    draws = torch.Generator().manual_seed(5)
    ids = torch.randint(vocab, (rows, width), generator=draws)
    lengths = torch.tensor([width - row % 3 for row in range(rows)])
    attention = (torch.arange(width) < lengths[:, None]).long()
    labels = torch.where((torch.arange(width) >= width // 2) & (attention == 1), ids.roll(-1, 1), -100)
    return {"input_ids": ids * attention, "attention_mask": attention, "labels": labels}


def loss(model, rows):
    """Cross-entropy of the answers."""
    logits = model(input_ids=rows["input_ids"], use_cache=False).logits
    return nn.functional.cross_entropy(logits.flatten(0, 1), rows["labels"].flatten())


def train(model, steps, *, rate=1e-2, rows=None):
    """Some steps of SGD; gives the losses."""
    rows = batch() if rows is None else rows
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        value = loss(model, rows)
        value.backward()
        optimizer.step()
        losses.append(float(value.detach()))
    return losses
