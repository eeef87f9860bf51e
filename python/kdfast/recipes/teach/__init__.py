"""The recipe behind `kdfast teach`; `run.run` fills the teacher store."""
