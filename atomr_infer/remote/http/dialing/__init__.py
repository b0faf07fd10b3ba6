"""Opening a connection: name look-up, TCP, proxies and TLS."""
