"""The recipe of `kdfast-train`; `run.run` trains the student that a config describes."""
