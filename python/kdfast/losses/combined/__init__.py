"""The training loss: the table of its terms, their plan for a batch, and their weighted sum."""
