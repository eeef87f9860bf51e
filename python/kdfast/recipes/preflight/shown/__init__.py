"""What becomes of findings: rows, screen, JSON, JUnit, and what the run folder keeps."""
