"""An HTTP client on trio for one upstream: HTTP/1.1 and HTTP/2, a pool, timeouts."""
