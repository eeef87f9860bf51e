"""The recipe of `kdfast export`: writes the files that a runtime reads, runs them, and compares."""
