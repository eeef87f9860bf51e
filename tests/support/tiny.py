"""A tiny byte-level BPE tokenizer with ChatML tokens for the tests; training it takes a moment."""

import json
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")

SENTENCES = (
    "What is the weather in Paris today? Tell me the temperature in celsius, please.",
    "You are a helpful assistant. Use the tools below when they help.",
    '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius"}}\n</tool_call>',
    '{"name": "add", "arguments": {"a": 1, "b": 2.5, "exact": true, "note": null}}',
    '<tools>\n{"type": "function", "function": {"name": "f", "description": "", "parameters": {}}}\n</tools>',
    "system\nuser\nassistant\ntool\n<tool_response>\n21 degrees\n</tool_response>",
    "Sorry, I cannot do that: the date is missing. naïve café, 東京, Привет, 😀 and 1234567890.",
)

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def train(vocab_size: int = 512) -> Tokenizer:
    """Train the tokenizer; every single byte is in its vocabulary."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(SENTENCES * 3, trainer)
    return tokenizer


def write_tokenizer(directory: Path, vocab_size: int = 512) -> Path:
    """Write a Hugging Face tokenizer directory (`tokenizer.json`, `tokenizer_config.json`) and return it."""
    directory.mkdir(parents=True, exist_ok=True)
    train(vocab_size).save(str(directory / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|endoftext|>",
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "model_max_length": 8192,
        "chat_template": CHATML,
    }
    (directory / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    return directory
