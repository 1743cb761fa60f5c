"""Flows to files, standard output and collectors, as Hubble's exporters write them (facts section 6)."""
