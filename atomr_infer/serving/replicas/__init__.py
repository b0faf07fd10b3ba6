"""A copy of a deployment that serves, and who of several takes a request."""
