"""The standard input source: lines that a person or a program pipes into `relay receive`. No worker drains it.

This source only says what does the work. Workers are processes that have no standard input of their own;
`relay/operations/receive.py` writes the lines, where `relay receive` is called.
"""

from typing import ClassVar

from relay.backends.source import NO_DRAINS, PassiveSource, SourceFeatures
from relay.backends.stdio.config import StdinSourceConfig


class StdinSource(PassiveSource[StdinSourceConfig]):
    features: ClassVar[SourceFeatures] = SourceFeatures(
        redelivers=False, uses_network=False, passive=True, one_lane=NO_DRAINS
    )
    config_model = StdinSourceConfig
    brought_by = "relay receive {pipeline}"
