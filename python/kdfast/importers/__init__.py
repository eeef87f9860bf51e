"""Importers: each turns one public dataset into kdfast records (JSONL), one module a dataset."""
