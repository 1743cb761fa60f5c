"""The scorecard: ratios measured in one run, interleaved, on the real kernel and the real Envoy. `make bench`."""
