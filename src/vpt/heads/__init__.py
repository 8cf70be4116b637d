"""Heads: pooling of tokens, and dense heads that score every pixel."""
