"""A Dramatiq application: `BROKER=redis://... SEEN=FILE dramatiq tests.workers.jobs.hand_off.dramatiq_app`."""

import json
import os
from pathlib import Path
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import CurrentMessage

URL = os.environ["BROKER"]

broker: dramatiq.Broker
if URL.startswith("redis://"):
    broker = RedisBroker(url=URL, namespace="app")
else:
    # Queues with arguments that no one else could know.
    broker = RabbitmqBroker(url=URL, confirm_delivery=True, max_priority=7)
broker.add_middleware(CurrentMessage())
dramatiq.set_broker(broker)


@dramatiq.actor(queue_name="mail", max_retries=0)
def send_receipt(*args: Any, **kwargs: Any) -> None:
    message = CurrentMessage.get_current_message()
    assert message is not None
    seen = {"id": message.message_id, "args": args, "kwargs": kwargs, "options": message.options}
    with Path(os.environ["SEEN"]).open("a") as file:
        file.write(json.dumps(seen) + "\n")
