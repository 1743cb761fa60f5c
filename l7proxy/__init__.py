"""What a request may do where Envoy has no parser: `dns`, `kafka` (docs/architecture.md)."""
