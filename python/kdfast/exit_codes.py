"""The exit codes of all commands, by what happened."""

DONE = 0
FAILED = 1
"""The machine failed (disk full, no permission, no memory), or kdfast has a bug."""
BAD_INPUT = 2
"""A config, data, path or argument that cannot be used."""
GATE_FAILED = 3
"""A gate failed, or a run has fewer valid calls than its config demands."""
PREFLIGHT_FAILED = 4
"""A check of `kdfast preflight` failed."""
TEACHER_UNAVAILABLE = 5
"""The teacher could not be loaded or did not answer, or its budget is spent."""
INTERRUPTED = 130
"""Stopped by Ctrl-C or SIGTERM; a run can be resumed."""
