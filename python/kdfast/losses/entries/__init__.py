"""One entry for each term of the training loss; `kdfast.losses.combined.table` lists them."""
