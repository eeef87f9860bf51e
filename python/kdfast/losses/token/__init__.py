"""Losses of one position each: divergences from the teacher's distribution, and cross-entropies."""
