"""What the compiled IR says of one packet or one request: what the kernel and Envoy would do, computed."""
