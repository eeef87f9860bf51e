"""What checks look with: slow references, tables of contradictions, comparisons."""
