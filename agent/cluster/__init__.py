"""The API server: how it is reached, what is read from it, and what a node writes to it (docs/cluster.md)."""
