"""What a run leaves on disk: its folder, metrics and checkpoints, and the reading of them.

Every file name of a run folder is spelled once, in `kdfast.runs.folder`.
"""
