"""What lasts: SQLite files, and their contents in memory where no file is named."""
