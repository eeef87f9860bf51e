"""Pre-tokenizers: found by their structure, refused by it; and llama.cpp's own cuts compared where it is installed."""

import json

import pytest
from export_students import save, tiny_student_model
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from kdfast.errors import ConfigError
from kdfast.export.gguf import write_gguf
from kdfast.export.gguf.pre_tokenizers import PRE_TOKENIZERS, pre_tokenizer
from kdfast.export.shipped import shipped_weights

TEXT = (
    "I've 'told he's there, 'RE you sure? 'M not sure I'll make it, 'D you like some tea? We'Ve a'lL 3 33 333 3333 "
    '33333 3.3 3..3\n \n\n \n\n\n \t \t\t  x   y ------======= {"name": "get_weather", "arguments": {"n": 12345}}\r\n'
    "  HelloWorld camelCase XMLHttp //path/to/x  end   "
)
OTHER_SCRIPTS = " кирилица Български ÄÖÜ straßE Élan 工作1314151天 かな 한국어 🚀 😶 ١٢٣ Ⅷ½ ² ™ “quoted”"
COMBINING = " कान e\u0301"
"""llama.cpp's cuts of tekken and gpt-4o know no combining marks."""


def made(steps, ignore_merges):
    """A tokenizer of the tokenizers library that cuts so, trained on the texts."""
    names = {"gpt-2": pre_tokenizers.ByteLevel(add_prefix_space=False), "digits": pre_tokenizers.Digits(True)}
    parts = [names.get(step) or pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
    if steps[-1] != "gpt-2":
        parts.append(pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False))
    tokenizer = Tokenizer(models.BPE(ignore_merges=ignore_merges))
    tokenizer.pre_tokenizer = parts[0] if len(parts) == 1 else pre_tokenizers.Sequence(parts)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    )
    tokenizer.train_from_iterator([TEXT * 3, OTHER_SCRIPTS * 3, COMBINING * 3, TEXT.upper()], trainer)
    return tokenizer


@pytest.mark.parametrize(("steps", "ignore_merges"), PRE_TOKENIZERS)
def test_every_entry_is_found_in_a_saved_tokenizer(steps, ignore_merges):
    document = json.loads(made(steps, ignore_merges).to_str())
    assert pre_tokenizer(document) == PRE_TOKENIZERS[steps, ignore_merges]


@pytest.mark.parametrize(("steps", "ignore_merges"), PRE_TOKENIZERS)
def test_llama_cpp_cuts_as_the_tokenizers_library_does(tmp_path, steps, ignore_merges):
    pytest.importorskip("xllamacpp")
    from kdfast.llama_cpp import LlamaCppModel

    tokenizer = made(steps, ignore_merges)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    model = tiny_student_model(vocab_size=tokenizer.get_vocab_size() + 5, eos_token_id=2)
    save(model, tmp_path / "student", tokenizer=tmp_path / "tokenizer.json")
    write_gguf(tmp_path / "x.gguf", shipped_weights(model, None), tmp_path / "student", name="x")
    known = PRE_TOKENIZERS[steps, ignore_merges] not in ("tekken", "gpt-4o")
    texts = [TEXT, OTHER_SCRIPTS, *OTHER_SCRIPTS.split(" "), f"<|im_start|>user\n{TEXT}<|im_end|>\n"]
    with LlamaCppModel(tmp_path / "x.gguf") as loaded:
        for text in texts + ([COMBINING] if known else []):
            assert loaded.tokenize(text) == tokenizer.encode(text).ids, text


def test_line_ends_may_stand_in_the_pattern_themselves():
    steps = next(steps for steps, _ in PRE_TOKENIZERS if r"[\r\n]*" in steps[0])
    pattern = steps[0].replace(r"\r", "\r").replace(r"\n", "\n")
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False}
    document = {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}, "model": {}}
    assert pre_tokenizer(document) == PRE_TOKENIZERS[steps, False]
    split |= {"behavior": "Removed", "invert": True}  # as older Qwen files write it
    assert pre_tokenizer(document) == PRE_TOKENIZERS[steps, False]


@pytest.mark.parametrize(
    ("pre", "said"),
    [
        (None, "none$"),
        ({"type": "ByteLevel", "add_prefix_space": True}, "'add_prefix_space': True"),
        ({"type": "Digits", "individual_digits": False}, "'Digits'"),
        ({"type": "Metaspace", "replacement": "_"}, "'Metaspace'"),
        ({"type": "Split", "pattern": {"String": " "}, "behavior": "Isolated"}, "'String': ' '"),
        ({"type": "Split", "pattern": {"Regex": "a"}, "behavior": "MergedWithNext"}, "'MergedWithNext'"),
        ({"type": "Split", "pattern": {"Regex": "a|b"}, "behavior": "Isolated"}, r"a\|b$"),
    ],
)
def test_another_pre_tokenizer_is_refused_by_its_cuts(pre, said):
    with pytest.raises(ConfigError, match=f"--pre NAME.*--target hf: .*{said}"):
        pre_tokenizer({"pre_tokenizer": pre, "model": {}})


def test_words_before_their_merges_make_another_one():
    level = {"type": "ByteLevel", "add_prefix_space": False}
    with pytest.raises(ConfigError, match=r"gpt-2, ignore_merges$"):
        pre_tokenizer({"pre_tokenizer": level, "model": {"ignore_merges": True}})


@pytest.mark.parametrize(
    "normalizer", [None, {"type": "NFC"}, {"type": "Sequence", "normalizers": [{"type": "NFC"}]}]
)
def test_nfc_is_left_to_the_parity_of_prompts(normalizer):
    level = {"type": "ByteLevel", "add_prefix_space": False}
    assert pre_tokenizer({"pre_tokenizer": level, "normalizer": normalizer, "model": {}}) == "gpt-2"


@pytest.mark.parametrize("normalizer", [{"type": "Lowercase"}, "NFC"])
def test_another_normalizer_is_refused(normalizer):
    level = {"type": "ByteLevel", "add_prefix_space": False}
    with pytest.raises(ConfigError, match="changes no text before it cuts it"):
        pre_tokenizer({"pre_tokenizer": level, "normalizer": normalizer, "model": {}})
