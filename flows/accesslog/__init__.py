"""Envoy's gRPC access log: entry -> record -> the halves of an exchange."""
