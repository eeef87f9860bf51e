"""Parity: does the exported file do what was trained? Each check gives a `ParityCheck`."""
