"""Outbox to Kafka beside Debezium's embedded engine and faststream-outbox: `python -m benchmarks --only peers`.

Each has the outbox that its own documentation tells one to make, the same payloads, and the same mock Kafka. Each runs
all the time, has been warmed by a round that does not count, and waits; a round is one transaction that holds the whole
backlog, and lasts from its commit until the last message is settled as the system settles it. Ours is measured twice in
each round: ours against ours says how much of a ratio is noise.

What is in the directory `programs` runs in an environment of its own in `.cache/peers`, one for each peer, in the
versions that its file of requirements pins. A peer that cannot be installed is a line that says why.
"""
