"""The forward drain: opens the sink, chooses the loop that suits it, and then redelivers what was requested."""

from collections.abc import Callable

import structlog

from relay.backends.registry import sink_class
from relay.backends.sink import ObjectSink, Sink, TransactionalSink
from relay.drains.fence import FencedSession
from relay.drains.lease import DrainResult, failed
from relay.drains.messages import Place
from relay.drains.moving import Mover
from relay.drains.outbox import Reader
from relay.drains.redelivery import Redeliveries
from relay.errors import NotConnected
from relay.pipelines.config import ForwardConfig, parse_forward
from workers.batches import ForwardDrain, ReadAhead
from workers.joined import Joined
from workers.moving import MovingDrain
from workers.objects import ObjectDrain
from workers.publisher import Publisher
from workers.redelivery import Redelivery
from workers.resources import OpenSink, Resources

log = structlog.get_logger(__name__)


def drain(resources: Resources, session: FencedSession) -> DrainResult:
    """Drains until the outbox is empty, the slice is over, the configuration changes, or the process stops.

    Raises Fenced, NotConnected (PostgreSQL), ConfigError. A sink's failure is in the value returned.
    """
    start, pipeline = session.start, session.lease.drain.pipeline
    place = f"{pipeline}/{start.lane}"
    try:
        opened = resources.sinks.take(place, start.revision, lambda: _made(session), lambda made: made.sink.open())
    except NotConnected as error:
        log.warning("sink cannot be opened", reason=str(error))
        needs_operator = error.code in sink_class(start.config["sink_type"]).needs_operator
        return failed(start.failures, error.code, str(error), needs_operator=needs_operator)
    config, sink = opened.config, opened.sink
    session.lease.seconds = config.pipeline.visibility_timeout_ms / 1000
    keep = False
    try:
        reader = Reader(session, config.pipeline.batch_size)
        publisher = Publisher(resources.stop, session, config, sink, reader)
        run = _loop(session, config, sink, reader, publisher)
        behind = publisher.begin()
        result = run() if behind is None else publisher.failed(behind)
        if publisher.sink_works and start.redeliver and result.outcome != "failed" and not session.config_changed:
            result = Redelivery(Redeliveries(session), session, config, sink, publisher).run(result)
        keep = publisher.sink_works
        if start.outbox_id is not None and start.reads_all and not isinstance(sink, ObjectSink):
            resources.guesses[pipeline] = Place(start.outbox_id, publisher.offset_id, config.pipeline.batch_size)
    finally:
        if keep:
            resources.sinks.give_back(place, start.revision, opened)
        else:
            sink.close()
    return result


def _made(session: FencedSession) -> OpenSink:
    config = parse_forward(session.start.config, resolved=True)
    return OpenSink(config, config.make_sink(session.lease.drain.pipeline))


def _loop(
    session: FencedSession, config: ForwardConfig, sink: Sink, reader: Reader, publisher: Publisher
) -> Callable[[], DrainResult]:
    """How the sink wants to be used."""
    if isinstance(sink, ObjectSink):
        return ObjectDrain(session.start, config, sink, reader, publisher).run
    if isinstance(sink, TransactionalSink) and sink.transactional:
        sink.use_transaction(session.connection)
        ordinary = ForwardDrain(publisher, reader, Joined(publisher, reader, session)).run
        if sink.inbox is not None and config.wire_format == "raw" and session.start.reads_all:
            mover = Mover(session, sink.inbox, config.pipeline.batch_size)
            return MovingDrain(publisher, mover, ordinary).run
        return ordinary
    return ForwardDrain(publisher, reader, ReadAhead(publisher, reader)).run
