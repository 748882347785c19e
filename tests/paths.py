"""Where the tests stand."""

from pathlib import Path

ROOT = Path(__file__).parents[1]
"""The checkout."""

DATA = Path(__file__).with_name("data")

REACH = {
    "RELAY_SECRET_FOLDERS": "/",
    "RELAY_SINK_FOLDERS": "/",
    "RELAY_SOURCE_FOLDERS": "/",
}
"""What the operator of the tests' own programs lets pipelines reach: files wherever pytest puts them. What is refused
without these variables has tests of its own."""
