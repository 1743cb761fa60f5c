"""What a request may do where Envoy has no parser: the DNS and Kafka proxies will live here (docs/architecture.md)."""
