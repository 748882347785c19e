"""Where the tests stand."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""

DATA = Path(__file__).with_name("data")
