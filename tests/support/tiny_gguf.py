"""GGUF files of Llama models, written with the package `gguf` alone: an oracle for kdfast's own writer."""

import json

import gguf
import torch
from tiny_models import VOCAB, tiny_llama, write_tokenizer

_LAYER = {
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_OUTSIDE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def write_llama(path, model, directory, half=False, pre="gpt-2", template=None):
    """Writes a Llama of transformers and its byte-level tokenizer as GGUF, as llama.cpp's converter lays it out.

    Args:
        path: the file.
        model: a `LlamaForCausalLM`.
        directory: where its `tokenizer.json` is.
        half: whether matrices are F16, else F32. Vectors always are F32.
        pre: llama.cpp's name of the tokenizer's pre-tokenizer.
        template: the chat template; None = none.

    Returns:
        The path.
    """
    config = model.config
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(_head_size(config))
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16 if half else gguf.LlamaFileType.ALL_F32)
    _add_tokenizer(writer, config, directory, pre)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in model.state_dict().items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        values = permuted(tensor, name, config).float()
        writer.add_tensor(
            gguf_name(name), (values.half() if half and values.ndim == 2 else values).contiguous().numpy()
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_scripted(path, pieces, template=None):
    """Writes a model that answers every prompt which ends with a line feed with the same pieces, then its end token.

    Args:
        path: the file; the tokenizer comes into its folder.
        pieces: texts, all different and no single bytes; each becomes one token, with the ids from 259 on.
        template: the chat template; None = none.

    Returns:
        The path.
    """
    special = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    write_tokenizer(path.parent, extra=(*special, *pieces))
    file = path.parent / "tokenizer.json"
    document = json.loads(file.read_text())
    for token in document["added_tokens"]:
        token["special"] = token["content"] in special
    file.write_text(json.dumps(document))
    model = tiny_llama(layers=1, vocab_size=VOCAB + len(pieces), max_position_embeddings=4096)
    line_feed = document["model"]["vocab"]["Ċ"]
    answer = [line_feed, *range(259, 259 + len(pieces)), 258]
    with torch.no_grad():
        layer, embedding = model.model.layers[0], model.model.embed_tokens.weight
        layer.self_attn.o_proj.weight.zero_()
        layer.mlp.down_proj.weight.zero_()  # the last state is the last token's embedding
        embedding.div_(embedding.norm(dim=1, keepdim=True))
        model.lm_head.weight.zero_()
        model.lm_head.weight[answer[1:]] = 10 * embedding[answer[:-1]]
    return write_llama(path, model, path.parent, template=template)


def gguf_name(name):
    """llama.cpp's name of a parameter: `model.layers.0.mlp.up_proj.weight` -> `blk.0.ffn_up.weight`."""
    stem, _, kind = name.rpartition(".")
    if stem in _OUTSIDE:
        return f"{_OUTSIDE[stem]}.{kind}"
    _, _, number, inner = stem.split(".", 3)
    return f"blk.{number}.{_LAYER[inner]}.{kind}"


def permuted(tensor, name, config):
    """The rows of q and k in llama.cpp's order, other tensors as they are.

    Rotary embedding turns pairs of rows. In transformers the pairs of a head are (0, h/2), (1, h/2 + 1), ...; in
    llama.cpp (0, 1), (2, 3), ...
    """
    if "q_proj" not in name and "k_proj" not in name:
        return tensor
    half = _head_size(config) // 2
    order = [
        head * 2 * half + part * half + pair
        for head in range(tensor.shape[0] // (2 * half))
        for pair in range(half)
        for part in (0, 1)
    ]
    return tensor[torch.tensor(order)]


def _head_size(config):
    return config.hidden_size // config.num_attention_heads


def _add_tokenizer(writer, config, directory, pre):
    document = json.loads((directory / "tokenizer.json").read_text())
    added = {token["id"]: token for token in document["added_tokens"]}
    names = {id_: piece for piece, id_ in document["model"]["vocab"].items()}
    names |= {id_: token["content"] for id_, token in added.items()}
    pieces = [names.get(id_, f"[PAD{id_}]") for id_ in range(config.vocab_size)]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(pieces)
    writer.add_token_types([int(_token_type(id_, names, added)) for id_ in range(config.vocab_size)])
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in document["model"]["merges"]]
    writer.add_token_merges(merges or ["ĠĠ ĠĠ"])  # an empty list has no type; this one makes no known piece
    writer.add_eos_token_id(config.eos_token_id)
    writer.add_add_bos_token(False)


def _token_type(id_, names, added):
    if id_ not in names:
        return gguf.TokenType.UNUSED
    if id_ not in added:
        return gguf.TokenType.NORMAL
    return gguf.TokenType.CONTROL if added[id_]["special"] else gguf.TokenType.USER_DEFINED
