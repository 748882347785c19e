"""The programs behind every figure that the project states: `make bench`.

Each figure is a ratio to a bare floor or to a peer, measured in turns in the same run: the machine may be shared, and
what it does meanwhile then falls on both. Each benchmark is one file with a `run` that yields figures as it has them.
"""
