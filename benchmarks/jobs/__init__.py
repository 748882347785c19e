"""Jobs beside PgQueuer, procrastinate, awa, Graphile Worker and pg-boss: `python -m benchmarks --only jobs`.

Each peer is used as its own documentation recommends for throughput, which its file in `peers` quotes: its client, its
batches, its concurrency, its way of waking workers. All of them have a database of their own on one server with durable
commits, the same payloads, handlers that do the same, and a `vacuum analyze` after each backlog is filled. Ours runs as
it is deployed: a scheduler, Redis, and `relay.workers` with its defaults. Every system keeps the history that it keeps
by default: procrastinate, awa, pg-boss and ours keep jobs that are done, PgQueuer a log of them, Graphile Worker
nothing.

The peers' programs live in environments of their own in `.cache/job-peers`, which `peers/install` makes. One that
cannot be installed is a line of the table that says why.
"""
