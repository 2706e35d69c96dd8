"""Batches, their delivery reports, and waiting, around one connected and primed producer.

A stop (the user's button, a timeout, a fatal error of the client) is only noted, in :meth:`Measurement.stop`: what is
under way fails at once, so that a waiting ``flush()`` returns, and the run ends between two calls of the client.
"""

import contextlib
import time
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from time import perf_counter, process_time
from typing import Any

import numpy
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from harness.client import PRIME_TIMEOUT_S, Connection, client_error, connect, explain, give_up
from harness.config import ClientConfig, check_whole, producer_settings
from harness.errors import ClusterError
from harness.network import INTERVAL_S, Network
from harness.runs import INTERRUPTED, BatchTiming, KeyValue, ProducerRun
from harness.topics import topic_metadata

# A message without acknowledgement for so long has failed, and the run is stopped; the user's own setting wins.
TIMEOUT_MS = 120_000
PRIMER = b"primer"  # its key, too: a compacted topic refuses a message without one


def prime(connection: Connection[Producer], topic: str) -> int:
    """Send a message to each partition, and return how many that are; they are acknowledged by then.

    Raises:
        ClusterError: one was not acknowledged in 25 s, or the topic refuses it.
        KeyboardInterrupt: the user pressed the stop button.
    """
    producer = connection.client
    partitions = list(topic_metadata(connection, topic).partitions)
    left = partitions.copy()
    failures: list[KafkaError] = []
    deadline = time.monotonic() + PRIME_TIMEOUT_S

    def report(error: KafkaError | None, _message: Message) -> None:
        if error:
            failures.append(error)

    try:
        while (left or len(producer)) and not failures and time.monotonic() < deadline:
            with contextlib.suppress(BufferError):  # the queue is full: the rest once there is room
                for partition in left.copy():
                    producer.produce(topic, PRIMER, PRIMER, partition, report)
                    left.remove(partition)
            producer.flush(0.5)
            connection.stop.check()
    except (KafkaException, SystemError) as error:
        failures.append(client_error(error))
    if failures or left or len(producer):
        connection.listen()
        said = failures[0] if failures else ""
        raise ClusterError(f"The topic {topic} can't be written to: {explain(said, connection.heard)}.")
    return len(partitions)


def await_statistics(connection: Connection[Producer], network: Network, sent: int) -> None:
    """Wait for new statistics: those at hand may count a message, and not yet the request that it goes out with."""
    connection.client.poll(0)
    network.sent = -1
    deadline = time.monotonic() + 2 * INTERVAL_S + 1
    while network.sent < sent and time.monotonic() < deadline and not connection.stop.pressed:
        connection.client.poll(0.05)
    connection.stop.check()


Report = Callable[[KafkaError | None, Message], None]


class Stopped(Exception):
    """Ends the block of a stopped run; raised between two calls of the client."""


@contextlib.contextmanager
def measured(mode: str, config: Mapping[str, str], topic: str) -> Iterator["Measurement"]:
    """A producer for one run: connected and primed before the block, its ``result`` ready after it.

    Raises:
        ClusterError: the cluster can't be reached, or the topic can't be written to.
        KeyboardInterrupt: the user pressed the stop button before the block; in it, that ends the run.
    """
    settings = ClientConfig({"delivery.timeout.ms": TIMEOUT_MS}) | producer_settings(config)
    settings |= {"statistics.interval.ms": round(1000 * INTERVAL_S)}
    network = Network()
    with connect(Producer, settings, stats_cb=network.take) as connection:
        sent = prime(connection, topic)
        await_statistics(connection, network, sent)
        network.begin()
        run = Measurement(mode, connection.client, topic, int(settings["delivery.timeout.ms"]) / 1000)
        connection.stop.then = lambda: run.stop(INTERRUPTED)
        if connection.stop.pressed:  # before there was anybody to answer for it
            raise KeyboardInterrupt
        try:
            with contextlib.suppress(Stopped):
                yield run
        finally:
            connection.stop.closing = True  # however often it is pressed, the run is brought to its end
            run.conclude()
        if run.result.complete:
            await_statistics(connection, network, sent + run.result.acknowledged)
            run.result.network = network.summary()


@dataclass
class _Batch:
    """A batch under way."""

    timing: BatchTiming
    started: float  # on the clock of perf_counter, in seconds
    waits: array  # seconds from produce() to the report, for each message that has arrived


class Measurement:
    """One run under way: a ``producer`` that is ready to send, and its ``result`` once it has been concluded."""

    def __init__(self, mode: str, producer: Producer, topic: str, timeout_s: float):
        self.producer: Any = producer  # None once it is concluded
        self.result = ProducerRun(mode)
        self._topic = topic
        self._timeout_s = timeout_s
        self._cpu_before = process_time()
        self._batches: list[_Batch] = []

    def batches(self, messages: Iterable[KeyValue], size: int) -> Iterator[list[KeyValue]]:
        """Cut the messages into batches; end where the run is stopped. A ``size`` below 1 is a ConfigError."""
        check_whole("batch_size", size)
        messages = iter(messages)
        self._cpu_before = process_time()
        while not self.result.stopped and (batch := list(islice(messages, size))):
            yield batch

    def start_batch(self, count: int, started: float) -> tuple[BatchTiming, Report]:
        """A new batch, and the delivery report that the client calls for each of its messages."""
        timing = BatchTiming(count)
        waits: array = array("f")
        left = count  # reports that are still to come
        self._batches.append(_Batch(timing, started, waits))

        def on_delivery(error: KafkaError | None, message: Message) -> None:
            nonlocal left
            left -= 1
            if left == 0:
                timing.delivered_s = perf_counter() - started
            if error is None:
                waits.append(message.latency())
            else:
                self._failed(timing, error, message)

        return timing, on_delivery

    def _failed(self, timing: BatchTiming, error: KafkaError, message: Message) -> None:
        timing.failed += 1
        self.result.undelivered.append((message.key(), message.value()))
        reason = KafkaError(error.code()).str()  # the client has more than one text for some
        self.result.errors[reason] = self.result.errors.get(reason, 0) + 1
        if error.fatal():
            self.stop(f"the client gave up: {error.str()}")
        elif error.code() == KafkaError._MSG_TIMED_OUT:
            self.stop(f"no acknowledgement within {self._timeout_s:g} s")

    def retry_or_fail(self, refusal: Exception, key: bytes | None, value: bytes | None, on_delivery: Report) -> None:
        """Deal with a message that ``produce()`` did not take: wait while the queue is full, else it has failed."""
        while isinstance(refusal, BufferError):
            self.result.queue_full += 1
            self.serve_reports(0.1)
            if self.result.stopped:
                raise Stopped
            try:
                return self.producer.produce(self._topic, value, key, -1, on_delivery)
            except (BufferError, KafkaException) as again:
                refusal = again
        on_delivery(refusal.args[0], Message(key=key, value=value))

    def serve_reports(self, timeout_s: float = 0.0) -> int:
        """Serve the reports that have come, and return how many; wait for one at most so many seconds."""
        try:
            return self.producer.poll(timeout_s)
        except (KafkaException, SystemError) as error:
            self.stop(f"the client gave up: {client_error(error).str()}")
            return 0

    def wait_for_all(self) -> None:
        """Wait until each message that was handed over is acknowledged or has failed, and serve its report."""
        try:
            # flush() says after a second at most how many are left; in between, the run may have been stopped
            while not self.result.stopped and self.producer.flush(1):
                pass
        except (KafkaException, SystemError) as error:
            self.stop(f"the client gave up: {client_error(error).str()}")
        if self.result.stopped:
            raise Stopped

    def stop(self, reason: str) -> None:
        """Have the run end at its next safe point; what is under way fails now.

        The first reason counts, but for the user's: who measures has to learn of that, whatever else went wrong.
        """
        if reason == INTERRUPTED or not self.result.stopped:
            self.result.stopped = reason
        if self.producer is not None and len(self.producer):  # a client that is closed can't be purged
            self.producer.purge()

    def conclude(self) -> None:
        """Let go of what is still under way after a stop, and bring the counts and times together."""
        result = self.result
        give_up(self.producer)
        ended = perf_counter()
        result.cpu_s = process_time() - self._cpu_before
        if self._batches:
            self._conclude_batches(ended)
        if result.acknowledged:
            all_waits = numpy.concatenate([batch.waits for batch in self._batches])
            result.wait_quantiles_s = numpy.quantile(all_waits, numpy.linspace(0, 1, 201)).tolist()
        self.producer = None  # reports that never came would keep it, and it them

    def _conclude_batches(self, ended: float) -> None:
        began = self._batches[0].started
        for batch in self._batches:
            timing = batch.timing
            timing.acknowledged = len(batch.waits)
            timing.started_s = batch.started - began
            if not timing.elapsed_s:  # the run was stopped in the middle of this batch
                timing.messages = timing.acknowledged + timing.failed
                timing.elapsed_s = ended - batch.started
            if not timing.delivered_s:
                timing.delivered_s = ended - batch.started
            self.result.batches.append(timing)
        self.result.elapsed_s = max(timing.started_s + timing.delivered_s for timing in self.result.batches)
