"""The losses of other packages, called as their own trainers call them.

Each gets the padded batch with masks or labels of -100, unless its trainer picks rows itself. Where a package has
no cross-entropy beside its distillation loss, one is added in the cheapest way its own outputs allow.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - as everybody calls it
from bench.losses.cases import Inputs
from bench.losses.contenders import AbsentError, Contender, Loss
from torch import Tensor


def load_module(name: str, root: Path | None = None) -> Any:
    """A module of a package without running the `__init__` of the packages above it.

    Some of those import a whole trainer and what that needs; the losses need torch alone.

    Args:
        name: dotted, of the module.
        root: the folder that holds the top package; None = installed.
    """
    parents = name.split(".")[:-1]
    if parents[0] not in sys.modules:
        found = importlib.util.find_spec(parents[0]) if root is None else None
        places = found.submodule_search_locations if found else [str(root / parents[0])] if root else None
        if not places or not Path(places[0]).is_dir():
            raise AbsentError(f"{parents[0]} is not installed")
        for depth in range(len(parents)):
            package = types.ModuleType(".".join(parents[: depth + 1]))
            package.__path__ = [str(Path(places[0], *parents[1 : depth + 1]))]
            sys.modules.setdefault(package.__name__, package)
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"{name} does not import: {error}") from error


def _installed(name: str) -> Any:
    """A module of an installed package, imported as usual."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise AbsentError(f"{name} does not import: {str(error).strip()}") from error


def _finish(loss: Tensor) -> Tensor:
    loss.backward()
    return loss.detach()


def _trl_gkd(kind: str, _: Path | None) -> Loss:
    divergence = _installed("trl.experimental.gkd.gkd_trainer").GKDTrainer.generalized_jsd_loss
    beta = 0.5 if kind == "jsd" else 0.0

    def run(x: Inputs) -> Tensor:
        logits = F.linear(x.hidden, x.weight)
        with torch.no_grad():
            teacher = F.linear(x.teacher_hidden, x.teacher_weight)
        kl = divergence(logits[None], teacher[None], labels=x.labels[None], beta=beta)
        return _finish(0.5 * kl + 0.5 * F.cross_entropy(logits, x.labels))

    return run


def _trl_chunked(kind: str, _: Path | None) -> Loss:
    divergence = _installed("trl.trainer.distillation_trainer")._chunked_divergence_loss  # noqa: SLF001
    logprob = _installed("trl.kernels.chunked_logprob").ChunkedLogProbFunction
    chunk = _installed("trl.kernels.chunked_divergence").VOCAB_CHUNK_SIZE
    beta = 0.5 if kind == "jsd" else 0.0

    def run(x: Inputs) -> Tensor:
        kl, _, _ = divergence(
            x.hidden[None], x.teacher_hidden[None], x.weight, x.teacher_weight, x.mask[None], beta
        )
        targets = x.labels.clamp(min=0)
        logp = logprob.apply(x.hidden, x.weight, None, targets, 1.0, chunk, None, 1.0, ())[0]
        return _finish(0.5 * kl - 0.5 * (logp * x.mask).sum() / x.count)

    return run


def _trl_server(_: str, __: Path | None) -> Loss:
    trainer = _installed(
        "trl.experimental.server_distillation.server_distillation_trainer"
    ).ServerDistillationTrainer
    settings = types.SimpleNamespace(
        loss_add_tail=True,
        _reduce_divergence_loss=trainer._reduce_divergence_loss,  # noqa: SLF001
    )

    def run(x: Inputs) -> Tensor:
        logq = F.log_softmax(F.linear(x.hidden, x.weight)[None], dim=-1)
        teacher = {"topk_logprobs": x.logp[None], "topk_token_ids": x.ids[None]}
        kl = trainer._compute_server_forward_kl_loss(settings, teacher, logq, x.labels[None])  # noqa: SLF001
        return _finish(0.5 * kl + 0.5 * F.nll_loss(logq[0], x.labels))

    return run


def _trl_async(_: str, __: Path | None) -> Loss:
    module = _installed("trl.experimental.async_distillation.async_distillation_trainer")
    logprob = _installed("trl.kernels.chunked_logprob").ChunkedLogProbFunction
    tile = _installed("trl.kernels.chunked_divergence").VOCAB_CHUNK_SIZE
    chunk = module._CHUNKED_LM_HEAD_CHUNK_SIZE  # noqa: SLF001

    def run(x: Inputs) -> Tensor:
        mask = x.mask
        hidden, ids, labels = x.hidden[mask], x.ids[mask], x.labels[mask]
        kl = module._chunked_jsd_loss(  # noqa: SLF001
            hidden_valid=hidden,
            lm_head_weight=x.weight,
            lm_head_bias=None,
            logit_scale=1.0,
            final_logit_softcapping=None,
            target_ids=ids,
            teacher_target_logps=x.logp[mask],
            valid_candidate_mask=torch.ones_like(ids, dtype=torch.bool),
            beta=0.0,
            temperature=1.0,
            add_tail_bucket=True,
            teacher_id_idx=None,
            num_teachers=1,
            chunk_size=chunk,
        )[0]
        logp = logprob.apply(hidden, x.weight, None, labels, 1.0, tile, None, 1.0, ())[0]
        return _finish((0.5 * kl - 0.5 * logp.sum()) / x.count)

    return run


def _liger(kind: str, *, compiled: bool) -> Loss:
    module = _installed("liger_kernel.chunked_loss")
    loss = module.LigerFusedLinearJSDLoss(beta=0.5 if kind == "jsd" else 0.0, compiled=compiled)

    def run(x: Inputs) -> Tensor:
        return _finish(loss(x.hidden, x.weight, x.teacher_hidden, x.teacher_weight, x.labels))

    return run


def _torchtune(_: str, __: Path | None) -> Loss:
    divergence = load_module("torchtune.modules.loss.kd_losses").ForwardKLWithChunkedOutputLoss()
    entropy = load_module("torchtune.modules.loss.ce_chunked_output_loss").CEWithChunkedOutputLoss()
    chunks = divergence.num_output_chunks

    def run(x: Inputs) -> Tensor:
        labels = x.labels[None]
        logits = [F.linear(part, x.weight) for part in x.hidden[None].chunk(chunks, dim=1)]
        with torch.no_grad():
            teacher = [
                F.linear(part, x.teacher_weight) for part in x.teacher_hidden[None].chunk(chunks, dim=1)
            ]
        return _finish(0.5 * divergence(logits, teacher, labels) + 0.5 * entropy(logits, labels))

    return run


def _distillkit(_: str, folder: Path | None) -> Loss:
    if folder is None:
        raise AbsentError("not in the package registry: name a checkout with --distillkit")
    kl = load_module("distillkit.lossfuncs.kl", folder)
    signals = _installed("distillkit.signals")
    outputs = _installed("transformers.modeling_outputs").CausalLMOutput
    loss = kl.KLDLoss(1.0, kl.MissingProbabilityHandling.SYMMETRIC_UNIFORM)

    def run(x: Inputs) -> Tensor:
        logits = F.linear(x.hidden, x.weight)
        student = outputs(loss=F.cross_entropy(logits, x.labels), logits=logits[None])
        signal = signals.SparseSignal(
            generation_temperature=1.0,
            hidden_states=None,
            vocab_size=len(x.weight),
            sparse_ids=x.ids[None],
            sparse_values=x.logp[None],
            log_values=True,
        )
        return _finish(0.5 * loss(student, signal, mask=x.mask[None, :, None]) + 0.5 * student.loss)

    return run


def _axolotl(*, compiled: bool) -> Loss:
    fused = load_module("axolotl.integrations.kd.kernels.liger").LigerFusedLinearKLTopKLogprobLoss
    loss = fused(0.5, 0.5, 1.0, 0.0, compiled=compiled, normalize_topk=False)

    def run(x: Inputs) -> Tensor:
        # it shifts labels itself
        labels = F.pad(x.labels[:-1], (1, 0), value=-100)[None]
        known = x.mask[:, None].expand(x.ids.shape)[None]
        total = loss(x.weight, x.hidden[None], x.ids[None], x.logp[None], known, labels)
        return _finish(total / x.count)

    return run


def _veomni(_: str, __: Path | None) -> Loss:
    function = load_module("veomni.ops.kernels.cross_entropy.chunk_topk_distill").chunk_topk_distill_function

    def run(x: Inputs) -> Tensor:
        logp, _, kl, _, _ = function(
            x.hidden[None], x.weight, x.labels[None], x.ids[None], x.logp[None], shift_labels=x.labels[None]
        )
        return _finish((0.5 * kl.sum() - 0.5 * logp.sum()) / x.count)

    return run


PEERS = (
    Contender(
        "TRL GKD",
        _trl_gkd,
        ("dense", "jsd"),
        "trl",
        about="GKDTrainer.generalized_jsd_loss, and F.cross_entropy on the same logits",
    ),
    Contender(
        "TRL chunked",
        _trl_chunked,
        ("dense", "jsd"),
        "trl",
        about="DistillationTrainer's chunked divergence, and CE by TRL's chunked log-probabilities; "
        "on CUDA it picks the supervised rows, on a CPU it does not",
    ),
    Contender(
        "TRL server",
        _trl_server,
        ("sparse",),
        "trl",
        about="ServerDistillationTrainer's sparse forward KL with its tail, and CE from the same log-probabilities",
    ),
    Contender(
        "TRL async",
        _trl_async,
        ("sparse",),
        "trl",
        rows=True,
        about="AsyncDistillationTrainer's checkpointed chunks with the tail, and CE by TRL's chunked "
        "log-probabilities; picks the supervised rows",
    ),
    Contender(
        "Liger",
        lambda kind, _: _liger(kind, compiled=False),
        ("dense", "jsd"),
        "liger-kernel",
        about="LigerFusedLinearJSDLoss (beta = 0 is the forward KL), compiled=False",
    ),
    Contender(
        "Liger compiled",
        lambda kind, _: _liger(kind, compiled=True),
        ("dense", "jsd"),
        "liger-kernel",
        whole_warm_up=True,
        about="the same with its default, torch.compile, after a warm-up of the same shape",
    ),
    Contender(
        "torchtune",
        _torchtune,
        ("dense",),
        "torchtune",
        "no entropy",
        about="ForwardKLWithChunkedOutputLoss and CEWithChunkedOutputLoss on logits in 8 chunks",
    ),
    Contender(
        "DistillKit",
        _distillkit,
        ("sparse",),
        "distillkit",
        about="KLDLoss, sparse, missing mass symmetric_uniform (the tail bucket), and F.cross_entropy",
    ),
    Contender(
        "axolotl",
        lambda _, __: _axolotl(compiled=False),
        ("sparse",),
        "axolotl",
        "truncated",
        about="its trainer's LigerFusedLinearKLTopKLogprobLoss, normalize_topk=False, compiled=False",
    ),
    Contender(
        "axolotl compiled",
        lambda _, __: _axolotl(compiled=True),
        ("sparse",),
        "axolotl",
        "truncated",
        whole_warm_up=True,
        about="the same with its default, torch.compile, after a warm-up of the same shape",
    ),
    Contender(
        "VeOmni",
        _veomni,
        ("sparse",),
        "veomni",
        "truncated",
        about="chunk_topk_distill_function; it gives the student's entropy as well",
    ),
)
