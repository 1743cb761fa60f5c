"""What a node tells: the Hubble API, the relay, metrics, exporters, agent events."""
