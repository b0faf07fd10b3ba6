"""How much may be asked: rates, concurrency, budgets; pure."""
