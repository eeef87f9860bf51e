"""The recipe behind `kdfast-train`; `run.run` takes a config to its finished student."""
