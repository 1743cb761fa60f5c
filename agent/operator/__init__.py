"""What one process does for a whole cluster: definitions, status of policies, garbage, admission (docs/cluster.md)."""
