"""A gRPC server that sends many small messages at little cost: HTTP/2 by h2, sockets by asyncio."""
