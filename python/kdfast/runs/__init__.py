"""What a run leaves on disk: its folder, metrics and checkpoints, and how they are read again.

Every file name of a run folder is spelled once, in `kdfast.runs.folder`.
"""
