"""A run's steps under quantisation: the phase, its checks and rollbacks, what ships, and what it gained."""
