"""Where deployments run, and how one takes the place of another; pure."""
