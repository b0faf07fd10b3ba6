"""What may hold a request back: rate limits, budgets, virtual keys and circuits."""
