"""A teacher that runs on this machine and scores answers by teacher forcing."""
