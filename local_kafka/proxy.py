"""A distance between clients and brokers: python -P proxy.py MARK DISTANCE_MS PORT:BROKER_PORT...

Each way takes half of the distance. It says "ready"; for each line that it is told it resets all connections of
clients and says how many. MARK tells the guard whose process this is.
"""

import asyncio
import contextlib
import functools
import os
import selectors
import socket
import struct
import sys
import threading

loop = asyncio.SelectorEventLoop(selectors.SelectSelector())  # others keep time to the millisecond only
one_way_s = float(sys.argv[2]) / 2_000
connections: list[list[asyncio.StreamWriter]] = []  # each its client's side and, once there is one, the broker's


async def connect(broker: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry a client's connection on to the broker; what ends on one side ends on the other, in the same way."""
    sides = [writer]
    connections.append(sides)
    try:
        await asyncio.sleep(2 * one_way_s)
        answers, requests = await asyncio.open_connection("127.0.0.1", broker)
        sides.append(requests)
        await asyncio.gather(carry(reader, requests), carry(answers, writer))
        for side in sides:
            side.close()
    except OSError:
        await asyncio.sleep(one_way_s)
        reset(sides)
    finally:
        connections.remove(sides)


async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    due = 0.0
    while data := await reader.read(2**16):
        due = max(loop.time() + one_way_s, due + 1e-6)  # no two at the same time, so that they stay in order
        loop.call_at(due, writer.write, data)
    await asyncio.sleep(max(one_way_s, due + 1e-6 - loop.time()))
    writer.write_eof()


def reset(sides: list[asyncio.StreamWriter]) -> None:
    for side in sides:
        with contextlib.suppress(OSError):
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # makes close() a reset
            side.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        side.transport.abort()


def reset_all() -> None:
    print(len(connections), flush=True)
    for sides in connections:
        reset(sides)


def reset_when_told() -> None:
    for _line in sys.stdin:
        loop.call_soon_threadsafe(reset_all)
    os._exit(0)  # its owner has ended


for route in sys.argv[3:]:
    port, broker = map(int, route.split(":"))
    loop.run_until_complete(asyncio.start_server(functools.partial(connect, broker), "127.0.0.1", port))
threading.Thread(target=reset_when_told, daemon=True).start()
print("ready", flush=True)
loop.run_forever()
