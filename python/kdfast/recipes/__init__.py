"""What a command does, from its config to its result: one module or folder per recipe, named like its command.

A recipe puts parts together; it imports no other recipe. Commands that join recipes do so in `kdfast.cli`.
"""
