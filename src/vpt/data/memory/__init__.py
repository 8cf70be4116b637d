"""Datasets of a Python program: arrays, torch datasets, Hugging Face datasets."""
