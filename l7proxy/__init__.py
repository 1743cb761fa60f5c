"""What a request may do where Envoy has no parser: the DNS proxy is in `dns`; Kafka is to follow (docs/architecture.md)."""
