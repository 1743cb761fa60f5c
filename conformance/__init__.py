"""Black-box suites: galaxies of pods in network namespaces, policies, probes, expected verdicts and flows."""
