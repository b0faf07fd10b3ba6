"""Who may ask, and whose turn it is; pure."""
