"""What a request may do where Envoy has no parser: DNS is in `dns`, Kafka is to follow (docs/architecture.md)."""
