"""Images whose labels stand in files: list files, and tables (CSV, JSON Lines, Parquet)."""
