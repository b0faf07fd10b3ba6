"""The operators' figures, for Prometheus: what is counted, and how all stands."""
