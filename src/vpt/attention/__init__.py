"""Exact attention with prompts as keys and values, for token sequences and Swin windows."""
