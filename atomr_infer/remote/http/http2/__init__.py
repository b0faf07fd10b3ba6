"""HTTP/2 as a client speaks it, over h2."""
