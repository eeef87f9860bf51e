"""A teacher that runs on this machine and gives the log-probabilities of given answers (teacher forcing)."""
