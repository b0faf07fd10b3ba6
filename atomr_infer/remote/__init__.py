"""The remote tier: HTTP client and sessions on trio."""
