"""A distance between clients and brokers: python -P proxy.py MARK DISTANCE_FILE PORT:BROKER_PORT...

The file holds the round trip in milliseconds, as a C double. Whoever writes it there in place moves the brokers.
"""

import asyncio
import contextlib
import functools
import mmap
import selectors
import sys

# select() waits for a time in microseconds; epoll, which asyncio would choose, rounds it up to whole milliseconds.
loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
with open(sys.argv[2], "rb") as file:
    round_trip_ms = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)).cast("d")


async def connect(broker_port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry a client's connection on to the broker; when one side ends it, it ends on the other."""
    await asyncio.sleep(round_trip_ms[0] / 1_000)
    try:
        answers, requests = await asyncio.open_connection("127.0.0.1", broker_port)
    except OSError:
        writer.close()
    else:
        await asyncio.gather(carry(reader, requests), carry(answers, writer))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what is read half a round trip later, in its order, also when the distance has shrunk meanwhile."""
    due = 0.0
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            due = due_after(due)
            loop.call_at(due, writer.write, data)
    loop.call_at(due_after(due), writer.close)


def due_after(previous: float) -> float:
    """When what comes now has to go on: a microsecond apart, since calls of the same time have no order."""
    return max(loop.time() + round_trip_ms[0] / 2_000, previous + 1e-6)


for route in sys.argv[3:]:
    port, broker_port = map(int, route.split(":"))
    loop.run_until_complete(asyncio.start_server(functools.partial(connect, broker_port), "127.0.0.1", port))
loop.run_forever()
