"""What a request will take, and what it took: tokens and money; pure."""
