"""The run folder, and the one place where the names of its files are spelled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kdfast.config import Config, load_config
from kdfast.errors import ConfigError

STUDENT_ORIGIN = "kdfast.json"
"""The file in a student's directory that says where its weights come from."""


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run. None of them need exist.

    Attributes:
        path: the folder.

    Examples:
        >>> folder = RunFolder(Path("runs/first"))
        >>> folder.speed.name, folder.evaluation("after").name, folder.holds_run
        ('speed.json', 'evaluation_after.json', False)
    """

    path: Path

    @property
    def config(self) -> Path:
        """The resolved config; written when everything was checked: a folder without it is no run folder."""
        return self.path / "config.yaml"

    @property
    def metrics(self) -> Path:
        """One JSON object per line."""
        return self.path / "metrics.jsonl"

    @property
    def tensorboard(self) -> Path:
        """TensorBoard's event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """One folder per checkpoint, see `kdfast.runs.checkpoint`."""
        return self.path / "checkpoints"

    def checkpoint(self, step: int) -> Path:
        """The checkpoint of a step."""
        return self.checkpoints / f"step_{step}"

    @property
    def trial(self) -> Path:
        """Where a checkpoint is written on trial; gone again before the first step."""
        return self.path / "trial"

    @property
    def lock(self) -> Path:
        """There while a process trains in the folder, see `kdfast.runs.claim`."""
        return self.path / "lock"

    @property
    def student(self) -> Path:
        """The final student, a Hugging Face directory."""
        return self.path / "student"

    @property
    def student_origin(self) -> Path:
        """Where the final student's weights come from: `{"step": 80, "final": "best", "ended": "num_steps"}`."""
        return self.student / STUDENT_ORIGIN

    @property
    def speed(self) -> Path:
        """The newest speed report."""
        return self.path / "speed.json"

    @property
    def gates(self) -> Path:
        """The result of the gates at the end of the run."""
        return self.path / "gates.json"

    @property
    def quantization(self) -> Path:
        """How the quantised students compare, where the run trained under quantisation."""
        return self.path / "quantization.json"

    @property
    def preflight(self) -> Path:
        """What `kdfast preflight` found before the run, or that the user chose to have none."""
        return self.path / "preflight.json"

    @property
    def report(self) -> Path:
        """The page that `kdfast report` writes."""
        return self.path / "report.html"

    def export(self, target: str) -> Path:
        """The folder of the student's export to a target, such as "gguf"; `TARGET.failed` beside it = it differs."""
        return self.path / "export" / target

    def evaluation(self, when: str) -> Path:
        """The evaluation `before` or `after` training."""
        return self.path / f"evaluation_{when}.json"

    @property
    def holds_run(self) -> bool:
        """Whether a run was started here."""
        return self.config.exists()


def check_run_folder(config: Config, *, resume: bool) -> None:
    """Checks, before the work, whether a run may start in its folder, or go on there; changes nothing.

    Raises:
        ConfigError: the path is a file; or the folder holds a run and `resume` is false; or that run has another
            config (only the keys that `--resume` may change may differ).
    """
    folder = RunFolder(config.io.run_dir)
    if folder.path.exists() and not folder.path.is_dir():
        raise ConfigError(f"io.run_dir: must be a folder, choose another path; this is a file: {folder.path}")
    if not folder.holds_run:
        return
    if not resume:
        raise ConfigError(
            f"io.run_dir: holds a run already; go on with it by --resume, or choose another folder: {folder.path}"
        )
    conflicts = config.conflicts(load_config(folder.config))
    if conflicts:
        raise ConfigError(
            f"io.run_dir: holds a run with another config ({'; '.join(conflicts)}); choose another folder or the "
            f"same config: {folder.path}"
        )
