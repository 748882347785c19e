"""One Kafka broker for tests: `python -m tests.services.kafka_broker SETTINGS.json`.

Apache Kafka (`apache_kafka.py`) takes seconds to start and needs Java, and librdkafka's mock broker has no topics to
create, no credentials and no isolation of transactions (aborted records are read by everybody, group offsets of a
transaction are forgotten). This one starts at once, keeps what it confirms over a kill, and does transactions as KIP-98
says; its client is librdkafka itself. It leaves out group membership, replicas, retention by age and compaction, and
serves what was created at once.
"""

import json
import os
import socket
import ssl
import struct
import sys
import threading
import time
from pathlib import Path
from typing import Any

from tests.services.kafka_log import FENCED, Header, Log, Partition, Transaction
from tests.services.kafka_protocol import APIS, METADATA_WITH_IDS, Api, Reader, write

OUT_OF_RANGE, UNKNOWN_TOPIC, TOO_LARGE, BAD_STATE = 1, 3, 10, 48
BAD_MAPPING, AUTHENTICATION, EXISTS, UNSUPPORTED, BAD_PARTITIONS = 49, 58, 36, 35, 37
LARGEST_BATCH_BYTES = 1_048_588


class Broker:
    """Each method named after a request takes its fields and gives those of the answer."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self._log = Log(Path(settings["journal"]))
        self._port = settings["advertised_port"]
        self._auto_create = settings["auto_create"]
        self.apis: dict[int, Api] = APIS | ({3: METADATA_WITH_IDS} if settings["topic_ids"] else {})
        self._keeps_metadata = settings["offset_metadata"]
        self._changed = threading.Condition()

    def answer(self, name: str, fields: list[Any]) -> Any:
        with self._changed:
            return getattr(self, name)(*fields)

    def api_versions(self) -> Any:
        # From 0, although one version alone is spoken: clients take the newest.
        return (0, [(key, 0, api.version) for key, api in self.apis.items()])

    def metadata(self, names: list[str] | None, create: int) -> Any:
        topics = []
        for name in self._log.topics if names is None else names:
            if name not in self._log.topics and create and self._auto_create:
                self._create(name, 1, {})
            count = len(self._log.topics.get(name, []))
            parts = [(0, number, 1, [1], [1]) for number in range(count)]
            topics.append((0 if count else UNKNOWN_TOPIC, name, 0, parts))
        return (0, [(1, "127.0.0.1", self._port, None)], "tests", 1, topics)

    def metadata_with_ids(self, wanted: list[Any] | None, create: int, _authorized: int) -> Any:
        names = None if wanted is None else [name for _, name, _ in wanted]
        wait, brokers, cluster, controller, topics = self.metadata(names, create)
        found = [
            (error, name, self._log.ids.get(name, bytes(16)), internal, [(*p[:3], -1, *p[3:], []) for p in parts], -1)
            for error, name, internal, parts in topics
        ]
        return (wait, brokers, cluster, controller, found)

    def _create(self, name: str, partitions: int, config: dict[str, str]) -> None:
        self._log.change("create", name, partitions, config, os.urandom(16))

    def produce(self, transactional: str | None, _acks: int, _timeout: int, topics: Any) -> Any:
        answers = []
        for topic, parts in topics:
            done = [(number, *self._append(transactional, topic, number, data), -1, 0) for number, data in parts]
            answers.append((topic, done))
        self._changed.notify_all()
        return (answers, 0)

    def _append(self, transactional: str | None, topic: str, number: int, batch: bytes) -> tuple[int, int]:
        part = self._part(topic, number)
        if part is None:
            return UNKNOWN_TOPIC, -1
        if len(batch) > int(self._log.configs[topic].get("max.message.bytes", LARGEST_BATCH_BYTES)):
            return TOO_LARGE, -1
        header = Header.of(batch)
        if header.transactional:
            transaction = self._log.transactions.get(transactional or "")
            problem = self._problem(transaction, header.producer, header.epoch)
            if problem or transaction is None or (topic, number) not in transaction.parts:
                return problem or BAD_STATE, -1
        problem, known_offset = part.check(header)
        if problem or known_offset >= 0:
            return problem, known_offset
        offset = part.next
        self._log.change("append", topic, number, batch)
        return 0, offset

    def fetch(self, _replica: int, wait_ms: int, min_bytes: int, max_bytes: int, isolation: int, topics: Any) -> Any:
        deadline = time.monotonic() + wait_ms / 1000
        while True:
            answers, size, failed = self._fetched(max_bytes, isolation, topics)
            left = deadline - time.monotonic()
            if size >= min_bytes or failed or left <= 0:
                return (0, answers)
            self._changed.wait(left)

    def _fetched(self, room: int, isolation: int, topics: Any) -> tuple[Any, int, bool]:
        answers, size, failed = [], 0, False
        for topic, parts in topics:
            done: list[Any] = []
            for number, offset, part_bytes in parts:
                part = self._part(topic, number)
                error = UNKNOWN_TOPIC if part is None else 0
                if part is not None and not part.start <= offset <= part.next:
                    error = OUT_OF_RANGE
                if part is None or error:
                    failed = True
                    done.append((number, error, -1, -1, [], b""))
                    continue
                below = part.stable if isolation else part.next
                data = part.read(offset, below, min(part_bytes, room - size)) if room > size else b""
                aborted = [(pid, first) for pid, first, last in part.aborted if last >= offset and first < below]
                size += len(data)
                done.append((number, 0, part.next, part.stable, aborted if isolation else [], data))
            answers.append((topic, done))
        return answers, size, failed

    def list_offsets(self, _replica: int, isolation: int, topics: Any) -> Any:
        def offset_of(part: Partition, moment: int) -> int:
            return part.start if moment == -2 else part.stable if isolation else part.next

        answers = []
        for topic, parts in topics:
            found = [(number, self._part(topic, number), moment) for number, moment in parts]
            answers.append((topic, [
                (number, UNKNOWN_TOPIC, -1, -1) if part is None else (number, 0, -1, offset_of(part, moment))
                for number, part, moment in found
            ]))  # fmt: skip
        return (0, answers)

    def find_coordinator(self, _key: str, _kind: int) -> Any:
        return (0, 0, None, 1, "127.0.0.1", self._port)

    def offset_commit(self, group: str, _generation: int, _member: str, _keep: int, topics: Any) -> Any:
        self._log.change("commit", _by_partition(group, topics))
        return (0, [(topic, [(number, 0) for number, *_ in parts]) for topic, parts in topics])

    def offset_fetch(self, group: str, topics: Any) -> Any:
        if topics is None:
            known = sorted((topic, number) for of, topic, number in self._log.offsets if of == group)
            topics = [(topic, [number]) for topic, number in known]
        answers = [(topic, [(n, *self._committed(group, topic, n), 0) for n in numbers]) for topic, numbers in topics]
        return (0, answers, 0)

    def _committed(self, group: str, topic: str, number: int) -> tuple[int, str | None]:
        offset, text = self._log.offsets.get((group, topic, number), (-1, ""))
        return offset, text if self._keeps_metadata else ""

    def create_topics(self, topics: Any, _timeout: int, check_only: int) -> Any:
        answers = []
        for name, partitions, _replicas, _assigned, config in topics:
            error = EXISTS if name in self._log.topics else 0
            if not error and not check_only:
                self._create(name, max(1, partitions), dict(config))
            answers.append((name, error, None))
        return (0, answers)

    def delete_topics(self, names: list[str], _timeout: int) -> Any:
        answers = [(name, 0 if name in self._log.topics else UNKNOWN_TOPIC) for name in names]
        for name in set(names) & set(self._log.topics):
            self._log.change("drop", name)
        return (0, answers)

    def create_partitions(self, topics: Any, _timeout: int, _check_only: int) -> Any:
        answers = []
        for name, count, _assigned in topics:
            wrong = count <= len(self._log.topics.get(name, []))
            if not wrong:
                self._log.change("widen", name, count)
            answers.append((name, BAD_PARTITIONS if wrong else 0, None))
        return (0, answers)

    def delete_records(self, topics: Any, _timeout: int) -> Any:
        for topic, parts in topics:
            for number, offset in parts:
                self._log.change("trim", topic, number, offset)
        return (0, [(topic, [(number, offset, 0) for number, offset in parts]) for topic, parts in topics])

    def init_producer_id(self, transactional: str | None, _timeout: int, producer: int, epoch: int) -> Any:
        if transactional is None:
            return (0, 0, self._log.change("new_producer"), 0)
        if producer >= 0:
            # It goes on after an error, if no other has taken over.
            problem = self._problem(self._log.transactions.get(transactional), producer, epoch)
            if problem:
                return (0, problem, -1, -1)
        transaction = self._log.change("take_over", transactional)
        self._changed.notify_all()
        return (0, 0, transaction.producer, transaction.epoch)

    def add_partitions(self, name: str, producer: int, epoch: int, topics: Any) -> Any:
        error = self._problem(self._log.transactions.get(name), producer, epoch)
        if not error:
            self._log.change("join", name, [(topic, number) for topic, numbers in topics for number in numbers])
        return (0, [(topic, [(number, error) for number in numbers]) for topic, numbers in topics])

    def add_offsets(self, name: str, producer: int, epoch: int, _group: str) -> Any:
        return (0, self._problem(self._log.transactions.get(name), producer, epoch))

    def transaction_offsets(self, name: str, group: str, producer: int, epoch: int, topics: Any) -> Any:
        error = self._problem(self._log.transactions.get(name), producer, epoch)
        if not error:
            self._log.change("promise", name, _by_partition(group, topics))
        return (0, [(topic, [(number, error) for number, *_ in parts]) for topic, parts in topics])

    def end_transaction(self, name: str, producer: int, epoch: int, commit: int) -> Any:
        error = self._problem(self._log.transactions.get(name), producer, epoch)
        if not error:
            self._log.change("end", name, bool(commit))
            self._changed.notify_all()
        return (0, error)

    def _part(self, topic: str, number: int) -> Partition | None:
        parts = self._log.topics.get(topic, [])
        return parts[number] if number < len(parts) else None

    def _problem(self, transaction: Transaction | None, producer: int, epoch: int) -> int:
        if transaction is None or transaction.producer != producer:
            return BAD_MAPPING
        return 0 if transaction.epoch == epoch else FENCED


def _by_partition(group: str, topics: Any) -> dict[tuple[str, str, int], tuple[int, str | None]]:
    return {(group, topic, number): (offset, text) for topic, parts in topics for number, offset, text in parts}


class Connection:
    def __init__(self, broker: Broker, users: dict[str, str]) -> None:
        self._broker = broker
        self._users = users
        self._known = not users

    def serve(self, stream: Any) -> None:
        while size := stream.read(4):
            request = Reader(stream.read(int.from_bytes(size)))
            key, version, number, _client = request.read(("hhis",))
            flexible = self._broker.apis[key].flexible and request.read("b") == 0
            answer = struct.pack(">ib", number, 0) if flexible else struct.pack(">i", number)
            answer += self._answer(key, version, request) + (b"\0" if flexible else b"")
            stream.write(struct.pack(">i", len(answer)) + answer)
            stream.flush()

    def _answer(self, key: int, version: int, request: Reader) -> bytes:
        api = self._broker.apis[key]
        if version != api.version:
            if api.name != "api_versions":
                raise ValueError(f"{api.name} in version {version}")
            return write(api.answer, (UNSUPPORTED, []))
        fields = request.read(api.request)
        if api.name == "sasl_handshake":
            return write(api.answer, (0, ["PLAIN"]))
        if api.name == "sasl_authenticate":
            _, user, password = fields[0].decode().split("\0")
            self._known = self._users.get(user) == password
            problem = None if self._known else "Authentication failed: Invalid username or password"
            return write(api.answer, (0 if self._known else AUTHENTICATION, problem, b""))
        if not self._known and api.name != "api_versions":
            raise ValueError("not authenticated")
        return write(api.answer, self._broker.answer(api.name, fields))


def main() -> None:
    settings = json.loads(Path(sys.argv[1]).read_text())
    broker = Broker(settings)
    tls = None
    if settings["certificate"]:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*settings["certificate"])
    listener = socket.create_server(("127.0.0.1", settings["port"]), backlog=128)

    def serve(accepted: socket.socket) -> None:
        try:
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with tls.wrap_socket(accepted, server_side=True) if tls else accepted as connection:
                Connection(broker, settings["users"]).serve(connection.makefile("rwb", buffering=1 << 20))
        except (OSError, ValueError, struct.error) as error:
            print(f"connection ended: {error!r}", flush=True)

    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()


if __name__ == "__main__":
    main()
