"""The pair benchmark: our sidecar pair beside a plain nginx pair and an Envoy pair, in one run."""
