"""The webhook source: other systems call us. `relay api` receives; no worker drains a pipeline of this kind.

This source only says what does the work.
"""

from typing import ClassVar

from relay.backends.source import NO_DRAINS, PassiveSource, SourceFeatures
from relay.backends.webhook.config import WebhookSourceConfig


class WebhookSource(PassiveSource[WebhookSourceConfig]):
    """Passive: see the module's text."""

    features: ClassVar[SourceFeatures] = SourceFeatures(
        ordered=False, keeps_headers=True, redelivers=True, needs_credentials=True, passive=True, one_lane=NO_DRAINS
    )
    config_model = WebhookSourceConfig
    brought_by = "relay api"
