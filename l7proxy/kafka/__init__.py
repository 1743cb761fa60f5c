"""The Kafka proxy: which topics a pod may speak of, and with which requests. docs/kafka.md is its story."""
