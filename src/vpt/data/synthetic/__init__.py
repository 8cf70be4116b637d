"""The built-in tasks, which need no download."""
