"""Calls the gRPC server: grpc_client.py ADDRESS PORT NAME CA TOKEN"""

import json
import queue
import sys

import grpc

address, port, name, ca, token = sys.argv[1:]
credentials = grpc.ssl_channel_credentials(open(ca, "rb").read())
options = (("grpc.ssl_target_name_override", name), ("grpc.enable_http_proxy", 0))
with grpc.secure_channel(f"{address}:{port}", credentials, options) as channel:
    unary = channel.unary_unary("/test.Echo/Unary")
    both_ways = channel.stream_stream("/test.Echo/BothWays")
    result = {}
    reply, call = unary.with_call(b"x" * 100_000, timeout=60)
    result["length"] = len(reply)
    result["trailer"] = dict(call.trailing_metadata())["x-sum"]
    try:
        unary(b"missing", timeout=60)
    except grpc.RpcError as error:
        result["missing"] = [error.code().name, error.details()]
    # Each answer is waited for before the next is asked for.
    result["answers"] = []
    answered = queue.SimpleQueue()

    def ask():
        for n in range(5):
            if n > 0:
                answered.get()
            yield bytes([n])

    for answer in both_ways(ask(), timeout=60):
        result["answers"].append(answer.hex())
        answered.put(True)
    try:
        unary(b"x", timeout=60, metadata=(("authorization", f"Bearer {token}"),))
    except grpc.RpcError as error:
        result["listed"] = error.code().name
    result["after"] = unary(b"still here", timeout=60).decode()
    print(json.dumps(result))
