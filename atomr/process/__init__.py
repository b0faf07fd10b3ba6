"""Processes as trio tasks: mailbox, links, monitors, exit signals, timers, names."""
