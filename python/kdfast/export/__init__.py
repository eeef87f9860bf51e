"""The student leaves: files for runtimes, with proof that they hold what was trained."""
