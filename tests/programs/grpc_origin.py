"""A gRPC server without generated code: grpc_origin.py PORT"""

import sys
from concurrent import futures

import grpc


def unary(request, context):
    if request == b"missing":
        context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")
    context.set_trailing_metadata((("x-sum", str(len(request))),))
    return request


def both_ways(requests, context):
    for request in requests:
        yield request * 2


handlers = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "BothWays": grpc.stream_stream_rpc_method_handler(both_ways),
}
server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("test.Echo", handlers),))
server.add_insecure_port(f"0.0.0.0:{sys.argv[1]}")
server.start()
server.wait_for_termination()
