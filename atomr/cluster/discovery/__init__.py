"""Where a node finds others to join by: fixed addresses, DNS, a file.

A discovery says whom to dial, and never who is alive: that is the membership's
business.
"""
