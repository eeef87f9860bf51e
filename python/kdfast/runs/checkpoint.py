"""Checkpoints of a run: `checkpoints/step_N/`, written beside and renamed last, without any pickle.

step_N/model.safetensors, config.json, tokenizer.json, ...   the student, a Hugging Face directory
step_N/optimizer.safetensors     `exp_avg.<parameter>`, `exp_avg_sq.<parameter>`, `step.<parameter>`
step_N/terms.safetensors         parameters that loss terms learn beside the student; only where there are any
step_N/qat.safetensors           codes and frozen scales; only under quantisation
step_N/state.json                format version, step, random states, thread count, sizes of the files, and
whatever the loop hands over (cursors, averages, fingerprints)
"""

from __future__ import annotations

import base64
import json
import re
import shutil
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from kdfast.errors import CheckpointError
from kdfast.files import put_back, remove_leftovers, written_whole

FORMAT_VERSION = 1
STATE_FILE = "state.json"
OPTIMIZER_FILE = "optimizer.safetensors"
TERMS_FILE = "terms.safetensors"
TERMS_PREFIX = "terms."


class Checkpoints:
    """The checkpoints of one run.

    Args:
        directory: `checkpoints` in the run folder; made with the first checkpoint.
        write_student: writes the student's files into a given directory.
    """

    def __init__(self, directory: Path, write_student: Callable[[Any, Path], None]) -> None:
        self.directory = directory
        self._write_student = write_student

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step is, or would be."""
        return self.directory / f"step_{step}"

    def steps(self) -> list[int]:
        """The steps of all whole checkpoints, oldest first."""
        names = (re.fullmatch(r"step_(\d+)", path.name) for path in self.directory.glob("step_*"))
        steps = sorted(int(name[1]) for name in names if name)
        return [step for step in steps if (self.path(step) / STATE_FILE).exists()]

    def put_back(self) -> None:
        """Brings back a checkpoint that a kill took away while it was replaced. For the process that writes them."""
        put_back(self.directory, "step_*")

    def latest(self) -> Path | None:
        """The newest checkpoint; None without any. What a kill left half-written is not looked at."""
        steps = self.steps()
        return self.path(steps[-1]) if steps else None

    def save(
        self,
        step: int,
        student: nn.Module,
        optimizer: torch.optim.Optimizer,
        state: Mapping[str, Any],
        *,
        terms: nn.Module | None = None,
        further: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> Path:
        """Writes the checkpoint of a step, whole or not at all.

        Only the process that writes a run's checkpoints may call this: leftovers of killed ones are removed.

        Args:
            step: optimiser updates done.
            student: the model; its parameters' names key the optimiser's state.
            optimizer: the optimiser of these parameters.
            state: what else the loop needs to go on; JSON.
            terms: parameters that loss terms learn; None = none.
            further: file name -> tensors that the loop needs besides, see `read_tensors`; None = none.

        Returns:
            its directory.

        Raises:
            OSError: it cannot be written; nothing is left of it then.
        """
        remove_leftovers(self.directory, "step_*")
        with written_whole(self.path(step)) as beside:
            self._write_student(student, beside)
            save_file(_optimizer_tensors(student, optimizer, terms), beside / OPTIMIZER_FILE)
            if terms is not None and terms.state_dict():
                save_file(_contiguous(terms.state_dict()), beside / TERMS_FILE)
            for name, tensors in (further or {}).items():
                # cloned: safetensors refuses tensors that share memory
                save_file({key: one.clone() for key, one in _contiguous(tensors).items()}, beside / name)
            written = sorted(file for file in beside.rglob("*") if file.is_file())
            sizes = {file.relative_to(beside).as_posix(): file.stat().st_size for file in written}
            document = {
                "format_version": FORMAT_VERSION,
                "step": step,
                "threads": torch.get_num_threads(),
                "random": _random_states(),
                "sizes": sizes,
                "state": dict(state),
            }
            (beside / STATE_FILE).write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
        return self.path(step)

    def prune(self, keep_last: int, keep: Collection[int] = ()) -> None:
        """Removes all but the newest checkpoints.

        Args:
            keep_last: how many to keep, at least 1.
            keep: steps to keep besides.
        """
        for step in self.steps()[: -max(keep_last, 1)]:
            if step not in keep:
                self._remove(step)

    def remove_after(self, step: int) -> None:
        """Removes the checkpoints of later steps, newest first: the run went back to an earlier one."""
        for later in reversed(self.steps()):
            if later > step:
                self._remove(later)

    def _remove(self, step: int) -> None:
        # without its state file it is no checkpoint any more, should the removal be interrupted
        (self.path(step) / STATE_FILE).unlink()
        shutil.rmtree(self.path(step))


def read_state(path: Path) -> dict[str, Any]:
    """What `Checkpoints.save` was given as `state`, after checking that the checkpoint is whole.

    Args:
        path: a checkpoint's directory.

    Raises:
        CheckpointError: missing, damaged, or of another format version.
    """
    state: dict[str, Any] = _read_document(path)["state"]
    return state


def read_tensors(path: Path, name: str) -> dict[str, Tensor]:
    """The tensors of a further file of a checkpoint; empty if it has no such file.

    Args:
        path: a checkpoint's directory, which `read_state` found whole.
        name: the file's name, as `Checkpoints.save` was given it.

    Raises:
        CheckpointError: the file is damaged.
    """
    if not (path / name).exists():
        return {}
    try:
        return load_file(path / name)
    except (OSError, SafetensorError) as cause:
        raise _damaged(path, name) from cause


def load_checkpoint(
    path: Path, student: nn.Module, optimizer: torch.optim.Optimizer, *, terms: nn.Module | None = None
) -> dict[str, Any]:
    """Restores the optimiser, the loss terms' own parameters and torch's random states.

    The student itself is a Hugging Face directory at the same path, and is loaded as one.

    Args:
        path: a checkpoint's directory.
        student: the model that was loaded from it.
        optimizer: a new one of the student's parameters, and of those of `terms`.
        terms: parameters that loss terms learn; None = none.

    Returns:
        what `Checkpoints.save` was given as `state`.

    Raises:
        CheckpointError: missing, damaged, of another format version, or of another model.

    Example:
        >>> import tempfile
        >>> layer = nn.Linear(2, 1)
        >>> optimizer = torch.optim.AdamW(layer.parameters())
        >>> checkpoints = Checkpoints(Path(tempfile.mkdtemp()), lambda model, directory: None)
        >>> path = checkpoints.save(7, layer, optimizer, {"cursors": [3]})
        >>> path.name, load_checkpoint(path, layer, optimizer)
        ('step_7', {'cursors': [3]})
    """
    document = _read_document(path)
    try:
        tensors = load_file(path / OPTIMIZER_FILE)
    except (OSError, SafetensorError) as cause:
        raise _damaged(path, OPTIMIZER_FILE) from cause
    _restore_optimizer(path, tensors, _named(student, terms), optimizer)
    _restore_terms(path, terms)
    _restore_random_states(document["random"])
    state: dict[str, Any] = document["state"]
    return state


def _damaged(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is damaged ({what}); remove it to go on from an older one: {path}"
    )


def _read_document(path: Path) -> dict[str, Any]:
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint there; start the run without --resume: {path}")
    try:
        document = json.loads((path / STATE_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError) as cause:
        raise _damaged(path, STATE_FILE) from cause
    version = document.get("format_version") if isinstance(document, dict) else None
    if version != FORMAT_VERSION:
        raise CheckpointError(
            f"the checkpoint has format version {version}, this kdfast reads {FORMAT_VERSION}; "
            f"go on with the kdfast that wrote it: {path}"
        )
    if not {"step", "threads", "random", "sizes", "state"} <= document.keys():
        raise _damaged(path, STATE_FILE)
    for name, size in document["sizes"].items():
        file = path / name
        if not file.is_file() or file.stat().st_size != size:
            raise _damaged(path, name)
    whole: dict[str, Any] = document
    return whole


def _named(student: nn.Module, terms: nn.Module | None) -> dict[str, nn.Parameter]:
    """The parameters by name: the student's, then those of the loss terms."""
    named = dict(student.named_parameters())
    if terms is not None:
        named |= {TERMS_PREFIX + name: parameter for name, parameter in terms.named_parameters()}
    return named


def _names(named: Mapping[str, nn.Parameter], optimizer: torch.optim.Optimizer) -> list[str]:
    """The names of the optimiser's parameters, in its own order."""
    names = {id(parameter): name for name, parameter in named.items()}
    return [names[id(parameter)] for group in optimizer.param_groups for parameter in group["params"]]


def _optimizer_tensors(
    student: nn.Module, optimizer: torch.optim.Optimizer, terms: nn.Module | None
) -> dict[str, Tensor]:
    names = _names(_named(student, terms), optimizer)
    return _contiguous(
        {
            f"{field}.{names[index]}": value
            for index, fields in optimizer.state_dict()["state"].items()
            for field, value in fields.items()
        }
    )


def _contiguous(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def _restore_optimizer(
    path: Path,
    tensors: Mapping[str, Tensor],
    named: Mapping[str, nn.Parameter],
    optimizer: torch.optim.Optimizer,
) -> None:
    index = {name: number for number, name in enumerate(_names(named, optimizer))}
    state: dict[int, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        field, _, name = key.partition(".")
        if name not in index or (tensor.dim() and tensor.shape != named[name].shape):
            raise _of_another_model(path, key)
        state.setdefault(index[name], {})[field] = tensor
    # torch puts each tensor where its parameter is
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _restore_terms(path: Path, terms: nn.Module | None) -> None:
    wanted = terms.state_dict() if terms is not None else {}
    file = path / TERMS_FILE
    if not wanted and not file.exists():
        return
    try:
        tensors = load_file(file)
    except (OSError, SafetensorError) as cause:
        raise _damaged(path, TERMS_FILE) from cause
    shapes = {name: tensor.shape for name, tensor in wanted.items()}
    if shapes != {name: tensor.shape for name, tensor in tensors.items()}:
        raise _of_another_model(path, TERMS_FILE)
    if terms is not None:
        terms.load_state_dict(tensors)


def _of_another_model(path: Path, what: str) -> CheckpointError:
    return CheckpointError(
        f"the checkpoint is of another model; resume with the config it was made with: {path} ({what})"
    )


def _random_states() -> dict[str, Any]:
    states = {"cpu": _encode(torch.get_rng_state())}
    if torch.cuda.is_available():
        states |= {f"cuda:{n}": _encode(one) for n, one in enumerate(torch.cuda.get_rng_state_all())}
    return states


def _restore_random_states(states: Mapping[str, str]) -> None:
    for device, text in states.items():
        state = torch.frombuffer(bytearray(base64.b64decode(text)), dtype=torch.uint8)
        if device == "cpu":
            torch.set_rng_state(state)
        elif torch.cuda.is_available() and int(device.removeprefix("cuda:")) < torch.cuda.device_count():
            torch.cuda.set_rng_state(state, device)


def _encode(state: Tensor) -> str:
    return base64.b64encode(state.cpu().numpy().tobytes()).decode("ascii")
