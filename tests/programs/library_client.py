"""Python's HTTP libraries, as applications use them: library_client.py ADDRESS PORT NAME CA TOKEN

Over TLS, unless CA is empty. Says of each library what became of its requests: a status, or how it failed.
"""

import asyncio
import json
import socket
import ssl
import sys
import urllib.request

import aiohttp
import httpx
import requests

address, port, name, ca, token = sys.argv[1:]
base = f"{'https' if ca else 'http'}://{name}:{port}"
context = ssl.create_default_context(cafile=ca) if ca else None
headers = {"Authorization": f"Bearer {token}"}
# Larger than what fits between two sockets: who sends all of it before reading must still come to the answer.
body = b"b" * 3_000_000
ASKED = (
    {},
    {"headers": headers},
    {},
    {"params": {"access_token": token}},
    {"cookies": {"session": token}},
    {"data": body},
    {"data": body, "headers": headers},
)

resolve = socket.getaddrinfo
# As /etc/hosts would have it.
socket.getaddrinfo = lambda host, *rest, **more: resolve(address if host == name else host, *rest, **more)


def failure(error, asked):
    """How a request failed, below all that a library says of it."""
    if ("data" in asked or "content" in asked) and not isinstance(error, (TimeoutError, requests.Timeout, httpx.TimeoutException)):
        return "lost"
    while error is not None:
        if isinstance(error, (ConnectionResetError, BrokenPipeError)):
            return "reset"
        if isinstance(error, (TimeoutError, requests.Timeout, httpx.TimeoutException)):
            return "timeout"
        deeper = error.__cause__ or error.__context__ or getattr(error, "reason", None)
        if deeper is None:
            return repr(error)
        error = deeper


def with_requests():
    said = []
    with requests.Session() as session:
        session.trust_env = False
        for asked in ASKED:
            try:
                reply = session.request(
                    "POST" if "data" in asked else "GET", base, timeout=60, verify=ca or None, **asked
                )
                said.append(reply.status_code)
            except requests.RequestException as error:
                said.append(failure(error, asked))
    return said


def with_httpx():
    said = []
    with httpx.Client(trust_env=False, timeout=60, verify=context or True) as client:
        for asked in ASKED:
            asked = {"content" if key == "data" else key: value for key, value in asked.items()}
            # For one request they are set by hand.
            if cookies := asked.pop("cookies", None):
                asked["headers"] = {"Cookie": f"session={cookies['session']}"}
            try:
                said.append(client.request("POST" if "content" in asked else "GET", base, **asked).status_code)
            except httpx.HTTPError as error:
                said.append(failure(error, asked))
    return said


def with_urllib():
    said = []
    handlers = [urllib.request.ProxyHandler({})]
    if context:
        handlers.append(urllib.request.HTTPSHandler(context=context))
    opener = urllib.request.build_opener(*handlers)
    for asked in ASKED:
        query = "?access_token=" + token if "params" in asked else ""
        request = urllib.request.Request(f"{base}/{query}", data=asked.get("data"), headers=asked.get("headers", {}))
        if "cookies" in asked:
            request.add_header("Cookie", f"session={token}")
        try:
            with opener.open(request, timeout=60) as reply:
                said.append(reply.status)
        except urllib.request.HTTPError as error:
            said.append(error.code)
        except OSError as error:
            said.append(failure(error, asked))
    return said


async def with_aiohttp():
    said = []
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(ssl=context or True)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        for asked in ASKED:
            try:
                async with session.request("POST" if "data" in asked else "GET", base, **asked) as reply:
                    await reply.read()
                    said.append(reply.status)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                said.append(failure(error, asked))
    return said


print(
    json.dumps(
        {
            "requests": with_requests(),
            "httpx": with_httpx(),
            "urllib": with_urllib(),
            "aiohttp": asyncio.run(with_aiohttp()),
        }
    )
)
