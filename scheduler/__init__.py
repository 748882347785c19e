"""The scheduler: owns pipelines by advisory locks, decides when each is due, and emits drains. It reads no message."""
