"""Many requests at once over one HTTP/2 connection: httpx_client.py ADDRESS PORT NAME CA TOKEN"""

import asyncio
import json
import ssl
import sys

import httpx

address, port, name, ca, token = sys.argv[1:]


async def main():
    context = ssl.create_default_context(cafile=ca)
    limits = httpx.Limits(max_connections=1)
    base = f"https://{address}:{port}"
    extensions = {"sni_hostname": name}
    async with httpx.AsyncClient(
        http1=False, http2=True, verify=context, limits=limits, base_url=base, trust_env=False
    ) as client:

        async def ask(n):
            headers = {"host": name, "x-number": str(n)}
            if n % 5 == 0:
                headers["authorization"] = f"Bearer {token}"
            body = b"x" * (n * 500) if n % 2 else None
            reply = await client.request(
                "POST" if body else "GET", f"/{n}", headers=headers, content=body, extensions=extensions
            )
            return [n, reply.status_code, reply.http_version]

        print(json.dumps(await asyncio.gather(*(ask(n) for n in range(100)))))


asyncio.run(main())
