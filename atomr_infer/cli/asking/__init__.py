"""Commands that ask a running gateway: how it stands, and what it is to do."""
