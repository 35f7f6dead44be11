"""Answers by WebSocket, by server-sent events and by the digest of a body: streams_origin.py PORT"""

import asyncio
import hashlib
import sys

from aiohttp import WSMsgType, web

EVENTS = 300


async def echo(request):
    socket = web.WebSocketResponse(max_msg_size=0)
    await socket.prepare(request)
    async for message in socket:
        if message.type == WSMsgType.TEXT:
            await socket.send_str(message.data)
        elif message.type == WSMsgType.BINARY:
            await socket.send_bytes(message.data)
    return socket


async def events(request):
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    for n in range(EVENTS):
        await response.write(f"id: {n}\ndata: Authorization: Bearer {n}\n\n".encode())
        await asyncio.sleep(0)
    await response.write_eof()
    return response


async def digest(request):
    body = await request.read()
    # By the port the client tells whether a connection was kept.
    port = request.transport.get_extra_info("peername")[1]
    return web.json_response([hashlib.sha256(body).hexdigest(), port])


application = web.Application(client_max_size=0)
application.add_routes([web.get("/socket", echo), web.get("/events", events), web.route("*", "/{path:.*}", digest)])
web.run_app(application, port=int(sys.argv[1]), print=None)
