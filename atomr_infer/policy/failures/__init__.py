"""What follows when an attempt fails: again, elsewhere, later, or not at all; pure."""
