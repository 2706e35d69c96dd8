"""A distance between clients and brokers: python -P proxy.py MARK DISTANCE_MS PORT:BROKER_PORT..."""

import asyncio
import contextlib
import functools
import selectors
import sys

loop = asyncio.SelectorEventLoop(selectors.SelectSelector())  # others keep time to the millisecond only
one_way_s = float(sys.argv[2]) / 2_000  # half of the round trip


async def connect(broker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry a client's connection on to the broker; when one side ends it, it ends on the other."""
    await asyncio.sleep(2 * one_way_s)
    try:
        answers, requests = await asyncio.open_connection("127.0.0.1", broker)
    except OSError:
        writer.close()
    else:
        await asyncio.gather(carry(reader, requests), carry(answers, writer))


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    due = 0.0
    with contextlib.suppress(OSError):
        while data := await reader.read(2**16):
            due = max(loop.time() + one_way_s, due + 1e-6)  # no two at the same time, so that they stay in order
            loop.call_at(due, writer.write, data)
    loop.call_at(max(loop.time() + one_way_s, due + 1e-6), writer.close)


for route in sys.argv[3:]:
    port, broker = map(int, route.split(":"))
    loop.run_until_complete(asyncio.start_server(functools.partial(connect, broker), "127.0.0.1", port))
loop.run_forever()
