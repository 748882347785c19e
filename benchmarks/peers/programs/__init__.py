"""The peers, each a program in an environment of its own; `common.py` says what they share."""
