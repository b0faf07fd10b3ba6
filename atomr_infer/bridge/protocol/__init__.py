"""What parent and child say to each other, and how it crosses the socket."""
