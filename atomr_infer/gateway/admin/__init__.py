"""What operators see of a running gateway, and what they can steer."""
