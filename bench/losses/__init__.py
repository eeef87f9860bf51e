"""The losses from hidden states: kdfast against what people use. `python -m bench.losses --help` from the root."""
