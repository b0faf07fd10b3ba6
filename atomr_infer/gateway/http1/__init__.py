"""HTTP/1.1 as the gateway serves it: a strict codec, and a connection over it."""
