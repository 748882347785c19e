"""What the workers do: plain functions that know no queue. Only `relay.workers` imports this package."""
