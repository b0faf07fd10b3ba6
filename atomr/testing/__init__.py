"""The testing kit: what tests of processes need, for users too."""
