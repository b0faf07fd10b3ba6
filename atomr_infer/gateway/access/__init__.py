"""Who is let in, what for, and what is whose."""
