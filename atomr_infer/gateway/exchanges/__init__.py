"""What each route does with a request and an answer, whatever carries them."""
