"""The child as the operating system sees it: its start, output, kin and end."""
