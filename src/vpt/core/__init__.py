"""Small building blocks that every layer uses: atomic files, spec strings, optional imports, text, environment."""
