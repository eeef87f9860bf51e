"""Importers: one module per public dataset, which it turns into kdfast records (JSONL)."""
