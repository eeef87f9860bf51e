"""A teacher behind an API: the journal of paid answers and what sends requests. It imports no torch."""
