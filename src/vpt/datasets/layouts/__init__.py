"""Readers of published file formats, one module per kind of format. Each returns a `SourceData`."""
