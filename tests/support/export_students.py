"""Tiny students as Hugging Face directories: each family, tied or not, float or trained under quantisation."""

from dataclasses import dataclass
from pathlib import Path

import torch
from quantized_models import train
from tiny_models import TEMPLATE, TURN_END, byte_pieces, write_tokenizer
from torch import nn

from kdfast.config.quant import QuantConfig
from kdfast.qat import apply_qat_to_model, convert_qat
from kdfast.quantized import FORMATS, Quantized, QuantizedTable, plan_model, write_table
from kdfast.student import save_student

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
SIZES = {
    "vocab_size": 300,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "rms_norm_eps": 1e-5,
    "bos_token_id": None,
    "eos_token_id": 258,
    "pad_token_id": None,
    "tie_word_embeddings": False,
}


@dataclass(frozen=True)
class ExportStudent:
    """A saved student: its directory, its model as it is saved, and its table (None = float)."""

    directory: Path
    model: nn.Module
    table: QuantizedTable | None


def tiny_student_model(family="llama", *, tied=False, seed=0, **options):
    """A model of a family whose norms are not all ones and whose biases are not all zeros; widths divide by 32."""
    import transformers

    names = {"llama": "Llama", "mistral": "Mistral", "qwen2": "Qwen2", "qwen3": "Qwen3", "smollm3": "SmolLM3"}
    own = {"qwen3": {"head_dim": 32}, "smollm3": {"num_hidden_layers": 5}}.get(family, {})
    settings = SIZES | own | {"tie_word_embeddings": tied, "initializer_range": 0.15} | options
    config = getattr(transformers, f"{names[family]}Config")(**settings)
    torch.manual_seed(seed)
    model = getattr(transformers, f"{names[family]}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model


def write_bpe_tokenizer(directory):
    """The byte-level tokenizer of `tiny_models`, with a few merges and a `<tool_call>` that is no special token."""
    import json

    path = write_tokenizer(directory) / "tokenizer.json"
    document = json.loads(path.read_text())
    pieces = byte_pieces()
    words = ["he", "in", "Ġt", "Ġthe", "Ġw", "er"]
    merges = [["h", "e"], ["i", "n"], ["Ġ", "t"], ["Ġt", "he"], ["Ġ", "w"], ["e", "r"]]
    document["model"]["vocab"] |= {word: len(pieces) + 3 + at for at, word in enumerate(words)}
    document["model"]["merges"] = merges
    plain = dict(document["added_tokens"][0], id=265, content="<tool_call>", special=False)
    document["added_tokens"].append(plain)
    path.write_text(json.dumps(document, ensure_ascii=False))
    return path.parent


def save(model, directory, **options):
    """Writes a model as a student's directory."""
    tokenizer = write_bpe_tokenizer(Path(directory).parent / f"{Path(directory).name}-tokenizer")
    settings = {"tokenizer": tokenizer, "chat_template": TEMPLATE, "turn_end": TURN_END} | options
    save_student(model, Path(directory), **settings)


def float_student(directory, family="llama", *, tied=False, **options):
    """A student that was not quantised."""
    model = tiny_student_model(family, tied=tied, **options)
    save(model, directory)
    return ExportStudent(Path(directory), model, None)


def trained_student(directory, family="llama", format_name="q4_0", *, tied=False, steps=2, **options):
    """A student after some steps under quantisation; its table holds what was trained, and `check_saved` passes."""
    model = tiny_student_model(family, tied=tied, **options)
    apply_qat_to_model(model, QuantConfig(enabled=True, format=format_name))
    train(model, steps, rate=1e-3)
    made = convert_qat(model)
    save(made.model, directory)
    write_table(made.table, Path(directory))
    return ExportStudent(Path(directory), made.model, made.table)


@torch.no_grad()
def any_codes_student(directory, family="llama", format_name="q4_0", *, tied=False, seed=0, **options):
    """A student whose codes and scales no rule would give: any codes, scales of both signs, and zeros.

    `check_saved` refuses it; a file that is made of it must hold it all the same.
    """
    model = tiny_student_model(family, tied=tied, **options)
    draws, parameters, tensors = torch.Generator().manual_seed(seed), dict(model.named_parameters()), {}
    for tensor in plan_model(model, QuantConfig(format=format_name)).tensors:
        kind, (rows, columns) = FORMATS[tensor.format], tensor.shape
        codes = torch.randint(
            kind.lowest, kind.highest + 1, (rows, columns), generator=draws, dtype=torch.int8
        )
        scales = torch.randn(rows, columns // kind.block_of(columns), generator=draws) * 0.02
        scales[::7] = 0.0
        tensors[tensor.name] = Quantized(tensor.format, codes, scales.half())
        parameters[tensor.name].copy_(tensors[tensor.name].dequantize())
    table = QuantizedTable(tensors)
    save(model, directory)
    write_table(table, Path(directory))
    return ExportStudent(Path(directory), model, table)


def rewrite_gguf(path, *, keys=None, tensors=None):
    """Writes a GGUF file again with other keys or tensors.

    Args:
        path: the file.
        keys: key -> (the name of its GGUF type, value), None = without it.
        tensors: name -> bytes [rows, bytes of a row] in the same format, or a float array; None = without it.
    """
    import gguf

    reader, keys, tensors = gguf.GGUFReader(path), keys or {}, tensors or {}
    found = {
        name: (field.types[0], field.contents(), field.types[-1] if len(field.types) > 1 else None)
        for name, field in reader.fields.items()
        if not name.startswith("GGUF.")
    }
    for key, change in keys.items():
        found.pop(key, None)
        if change is not None:
            found[key] = (gguf.GGUFValueType[change[0]], change[1], None)
    writer = gguf.GGUFWriter(path.with_suffix(".new"), found.pop("general.architecture")[1])
    for key, (kind, value, inner) in found.items():
        writer.add_key_value(key, value, kind, sub_type=inner)
    old = {one.name: (one.data.copy(), one.tensor_type) for one in reader.tensors}
    for name in {**old, **tensors}:
        data, kind = old.get(name, (None, gguf.GGMLQuantizationType.F32))
        data = tensors.get(name, data)
        if data is not None:
            writer.add_tensor(name, data, raw_dtype=kind if data.dtype == "uint8" else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    path.with_suffix(".new").replace(path)
