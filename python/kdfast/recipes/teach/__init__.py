"""The recipe of `kdfast teach`; `run.run` fills the teacher store."""
