"""What is deployed: its trees, and how they change while they serve."""
