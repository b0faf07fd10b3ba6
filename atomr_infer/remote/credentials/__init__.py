"""The keys of a deployment: where they are, which is next, and when one is renewed."""
