"""JSON that no Python parses and every PostgreSQL does. (Python 3.13 goes down to 10,000, earlier ones to 1,000.)"""

DEPTH = 12_000
TOO_DEEP = "[" * DEPTH + "]" * DEPTH
