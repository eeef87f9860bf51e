"""The metrics of a run: `metrics.jsonl`, and TensorBoard if the config asks for it."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from kdfast.errors import ConfigError, DataError
from kdfast.files import parse_json, write_text_whole
from kdfast.runs.folder import RunFolder


class MetricsLog:
    """Appends one JSON object per line: `{"step": 8, "kind": "train", "loss": 0.7, ...}`.

    A number that is not finite is left out and named under `"not_finite"`: JSON has no NaN.

    Examples:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "metrics.jsonl"
        >>> with MetricsLog(file) as log:
        ...     log.write("train", 1, {"loss": 0.5})
        >>> read_metrics(file)
        [{'step': 1, 'kind': 'train', 'loss': 0.5}]
    """

    def __init__(self, path: Path, *, tensorboard: bool = False, write: bool = True) -> None:
        """Opens the file for appending; with `write=False` (ranks other than the first) nothing is written."""
        self._path = path
        self._file = path.open("a", encoding="utf-8") if write else None
        self._writer: Any = (
            _tensorboard(RunFolder(path.parent).tensorboard) if tensorboard and write else None
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self._writer is not None:
            self._writer.close()

    def write(
        self, kind: str, step: int, values: Mapping[str, float], tags: Mapping[str, Any] | None = None
    ) -> None:
        """Writes one line and flushes it.

        Args:
            kind: the kind of the line, such as `train`.
            step: optimiser updates done.
            values: numbers, for the file and for TensorBoard.
            tags: further JSON values, for the file only.
        """
        if self._file is None:
            return
        finite = {name: value for name, value in values.items() if math.isfinite(value)}
        line: dict[str, Any] = {"step": step, "kind": kind, **(tags or {}), **finite}
        if len(finite) < len(values):
            line["not_finite"] = sorted(set(values) - set(finite))
        self._file.write(json.dumps(line) + "\n")
        self._file.flush()
        if self._writer is not None:
            for name, value in finite.items():
                self._writer.add_scalar(f"{kind}/{name}", value, step)

    def lines(self) -> list[dict[str, Any]]:
        """The lines written so far, also by the runs that this one goes on from; none where nothing is written."""
        return [] if self._file is None else read_metrics(self._path)

    def cut(self, step: int) -> None:
        """Removes the lines after a step: the run went back to it. TensorBoard keeps what it has."""
        if self._file is None:
            return
        self._file.close()
        cut_metrics(self._path, step)
        self._file = self._path.open("a", encoding="utf-8")


def _tensorboard(directory: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as error:
        raise ConfigError(
            "io.tensorboard: needs the package tensorboard; pip install 'kdfast[tensorboard]' or set it to false: true"
        ) from error
    return SummaryWriter(str(directory))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file.

    Raises:
        DataError: a line is no JSON object.
    """
    lines = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        try:
            lines.append(parse_json(line))
        except ValueError as error:
            raise DataError(f"not a JSON object: {error}", str(path), number) from error
    return lines


def cut_metrics(path: Path, step: int) -> None:
    """Removes the lines after `step` and a torn last line, so that a resumed run writes each step once."""
    if not path.exists():
        return
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            entry = parse_json(line)
        except ValueError:
            break  # a kill cut this line short: it was the last one
        if entry["step"] <= step:
            kept.append(line + "\n")
    write_text_whole(path, "".join(kept))
