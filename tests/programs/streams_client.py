"""Long connections of a client that asks for nothing listed: streams_client.py ADDRESS PORT

Says of each kind what came of it; what was sent and what came back are compared here.
"""

import asyncio
import hashlib
import json
import sys

import aiohttp

address, port = sys.argv[1:]
base = f"http://{address}:{port}"
LINES = "Authorization: Bearer not-a-listed-one\r\nX-API-Key: nor-this-one\r\nGET /?access_token=c HTTP/1.1\r\n"
REQUESTS = 300


async def web_socket(session):
    """Messages of many sizes, some of which look like requests, there and back."""
    same = 0
    async with session.ws_connect(f"{base}/socket", max_msg_size=0) as socket:
        for n in range(100):
            text = f"{n} " + LINES * (n % 7)
            await socket.send_str(text)
            same += await socket.receive_str() == text
        for size in (0, 1, 125, 126, 65536, 200_000):
            message = bytes(n * n % 251 for n in range(size))
            await socket.send_bytes(message)
            same += await socket.receive_bytes() == message
    return same


async def events(session):
    """What comes of a stream of events, line by line."""
    async with session.get(f"{base}/events") as response:
        return sum([1 async for line in response.content if line.startswith(b"data: Authorization: Bearer ")])


async def requests(session):
    """Requests on one connection; how many were understood, over how many connections."""
    understood, ports = 0, set()
    for n in range(REQUESTS):
        body = (LINES * (n % 50)).encode()
        parts = {"params": {"n": str(n), "q": "a b"}, "headers": {"Authorization": f"Bearer request-{n}"}}
        async with session.post(f"{base}/a/b", data=body, **parts) as response:
            digest, from_port = await response.json()
        understood += digest == hashlib.sha256(body).hexdigest()
        ports.add(from_port)
    return [understood, len(ports)]


async def main():
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=30)
    said = {}
    for kind in (web_socket, events, requests):
        async with aiohttp.ClientSession(timeout=timeout) as session:
            said[kind.__name__] = await kind(session)
    print(json.dumps(said))


asyncio.run(main())
