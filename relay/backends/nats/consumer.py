"""The durable consumer of a NATS source: found, judged, created, and recreated where it was lost."""

import json
import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import nats.js.errors
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, RetentionPolicy

from relay.backends.nats.config import NatsSourceConfig
from relay.errors import ConfigError

if TYPE_CHECKING:
    from nats.aio.client import Client
    from nats.js.api import StreamInfo

log = logging.getLogger(__name__)

_CONSUMER_NOT_FOUND = 10014


@dataclass(frozen=True, slots=True)
class Limits:
    """What a consumer that someone configured lets one request ask for; 0: as much as it likes."""

    most: int
    most_bytes: int
    longest_ns: int
    most_unacknowledged: int

    def batch(self, wanted: int, held: int) -> int:
        """Zero or less: nothing more comes before something is acknowledged."""
        wanted = min(wanted, self.most) if self.most > 0 else wanted
        return min(wanted, self.most_unacknowledged - held) if self.most_unacknowledged > 0 else wanted

    def bytes(self, wanted: int) -> int:
        return min(wanted, self.most_bytes) if self.most_bytes > 0 else wanted

    def expires_ns(self, seconds: float) -> int:
        wanted = max(1, int(seconds * 1e9))
        return min(wanted, self.longest_ns) if self.longest_ns > 0 else wanted


@dataclass(frozen=True, slots=True)
class Consumer:
    """As the server described it."""

    stream: str
    name: str
    stream_made: str
    """When the stream was made, which tells it from another of the same name."""
    info: dict[str, Any]

    @property
    def limits(self) -> Limits:
        config = self.info["config"]
        keys = ("max_batch", "max_bytes", "max_expires", "max_ack_pending")
        return Limits(*(config.get(key, 0) for key in keys))

    @property
    def floor(self) -> int:
        """Up to this sequence everything was acknowledged."""
        return int(self.info["ack_floor"]["stream_seq"])

    @property
    def unacknowledged_count(self) -> int:
        return int(self.info["num_ack_pending"])

    def unacknowledged(self) -> range:
        """Sequences among which are all that were delivered and not acknowledged."""
        return range(self.floor + 1, self.info["delivered"]["stream_seq"] + 1 if self.unacknowledged_count else 0)

    def reply_for(self, sequence: int) -> str:
        """Where to answer a message that another connection received. The server ignores one that it does not miss."""
        return f"$JS.ACK.{self.stream}.{self.name}.1.{sequence}.{self.info['delivered']['consumer_seq']}.0.0"

    async def again(self, client: "Client", seconds: float) -> "Consumer":
        """As it is now."""
        return Consumer(self.stream, self.name, self.stream_made, await _info(client, self.stream, self.name, seconds))


async def find_or_make(
    client: "Client",
    config: NatsSourceConfig,
    name: str,
    where: str,
    stream: "StreamInfo | None",
    position: str | None,
) -> Consumer:
    """The consumer as it is, or a new one from the position on. Raises ConfigError, and what the client raises."""
    if stream is None:
        raise ConfigError(
            f"{where}: there is no such stream; create it "
            f"(nats stream add {config.stream} --subjects '{config.stream},{config.stream}.>' --defaults)"
        )
    seconds = config.timeout_ms / 1000
    made = str(stream.created.isoformat() if stream.created else "")
    try:
        info = await _info(client, config.stream, name, seconds)
        if position is not None and _of_another(position, made) and info["config"].get("deliver_policy") != "all":
            log.warning("%s: the stream was recreated, and its consumer too; it begins where that one says", where)
    except nats.js.errors.NotFoundError as error:
        if error.err_code != _CONSUMER_NOT_FOUND:
            raise
        if not config.create_consumer:
            raise ConfigError(
                f"{where}: there is no such consumer; create it "
                f"(nats consumer add {config.stream} {name} --pull --ack explicit --max-deliver=-1 --defaults) "
                "or set create_consumer to true"
            ) from error
        wanted = _configured(config, name) | _start(config, where, stream, made, position)
        await client.jsm(timeout=seconds).add_consumer(config.stream, config=ConsumerConfig(**wanted))
        info = await _info(client, config.stream, name, seconds)
    _judge(info["config"], config, where)
    return Consumer(config.stream, name, made, info)


async def _info(client: "Client", stream: str, name: str, seconds: float) -> dict[str, Any]:
    # Asked for by hand: the client's own class leaves out the limits of a request.
    answer = await client.request(f"$JS.API.CONSUMER.INFO.{stream}.{name}", b"", timeout=seconds)
    info: dict[str, Any] = json.loads(answer.data)
    if "error" in info:
        nats.js.errors.APIError.from_error(info["error"])
    return info


def _configured(config: NatsSourceConfig, name: str) -> dict[str, Any]:
    return {
        "durable_name": name,
        "ack_policy": AckPolicy.EXPLICIT,
        "ack_wait": config.ack_wait_ms / 1000,
        "max_ack_pending": config.max_ack_pending,
        "max_deliver": -1,
        "filter_subject": config.subject,
    }


def _start(
    config: NatsSourceConfig, where: str, stream: "StreamInfo", made: str, position: str | None
) -> dict[str, Any]:
    """Where a new consumer begins: as configured, or where the one before it stood."""
    if stream.config.retention == RetentionPolicy.WORK_QUEUE:
        # There is no other way, and what was acknowledged is gone from it.
        return {"deliver_policy": DeliverPolicy.ALL}
    if position is None:
        return {"deliver_policy": DeliverPolicy(config.deliver_policy), "opt_start_seq": config.start_sequence}
    sequence = position.partition("@")[0]
    if _of_another(position, made):
        log.warning("%s: the stream was recreated; reading all of it", where)
        return {"deliver_policy": DeliverPolicy.ALL}
    log.warning("%s: the consumer was lost; recreating it after sequence %s", where, sequence)
    return {"deliver_policy": DeliverPolicy.BY_START_SEQUENCE, "opt_start_seq": int(sequence) + 1}


def _of_another(position: str, made: str) -> bool:
    """Whether it is of a stream of the same name that was there before."""
    return position.partition("@")[2] != made


def _judge(found: dict[str, Any], config: NatsSourceConfig, where: str) -> None:
    """Raises ConfigError for a consumer with which messages would be lost, or could not be received."""
    hint = "name another consumer, or delete it so that it is recreated"
    if found.get("deliver_subject"):
        raise ConfigError(f"{where}: it is a push consumer, and this needs a pull consumer; {hint}")
    if found.get("ack_policy") != "explicit":
        raise ConfigError(f"{where}: its ack_policy is {found.get('ack_policy')!r} and must be 'explicit'; {hint}")
    if found.get("max_deliver", -1) > 0:
        raise ConfigError(
            f"{where}: it gives a message up after {found['max_deliver']} deliveries (max_deliver), which loses it; "
            f"set it to -1 (nats consumer edit), or {hint}"
        )
    subjects = found.get("filter_subjects") or [found.get("filter_subject") or ">"]
    if config.subject is not None and subjects != [config.subject]:
        raise ConfigError(f"{where}: it selects {', '.join(subjects)} and not {config.subject!r} (subject); {hint}")
