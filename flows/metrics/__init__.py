"""Hubble's Prometheus metrics, counted from flows: the same names, labels and options (facts section 7)."""
