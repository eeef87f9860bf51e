"""What all tests share: one Hypothesis profile and one torch thread."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

settings.register_profile("kdfast", deadline=None, print_blob=True)
settings.load_profile("kdfast")
