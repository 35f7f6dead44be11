"""Speaks over a WebSocket, then is refused one: websocket_client.py ADDRESS PORT NAME CA TOKEN"""

import asyncio
import json
import ssl
import sys

from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

address, port, name, ca, token = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)


def dial(**more):
    return connect(
        f"wss://{name}:{port}/chat",
        host=address,
        ssl=context,
        server_hostname=name,
        proxy=None,
        max_size=None,
        **more,
    )


async def refused(**more):
    try:
        async with dial(**more):
            return 101
    except InvalidStatus as error:
        return error.response.status_code


async def main():
    sizes = []
    async with dial(subprotocols=["chat"]) as socket:
        for size in (0, 1, 125, 126, 65536, 1 << 20):
            await socket.send(b"x" * size)
            sizes.append(len(await socket.recv()))
        await socket.send("text")
        text = await socket.recv()
        await (await socket.ping())
        subprotocol = socket.subprotocol
    result = {
        "sizes": sizes,
        "text": text,
        "subprotocol": subprotocol,
        "closed": socket.close_code,
        "header": await refused(additional_headers={"Authorization": f"Bearer {token}"}),
    }
    print(json.dumps(result))


asyncio.run(main())
