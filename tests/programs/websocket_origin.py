"""A WebSocket server that sends back what it gets: websocket_origin.py PORT"""

import asyncio
import sys

from websockets.asyncio.server import serve


async def echo(connection):
    async for message in connection:
        await connection.send(message)


async def main():
    async with serve(echo, "0.0.0.0", int(sys.argv[1]), subprotocols=["chat"]) as server:
        await server.serve_forever()


asyncio.run(main())
