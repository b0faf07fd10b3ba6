"""What a person reads: the banner, progress, tables, instants and log lines."""
