"""Readers of published file formats, one module per format. Each returns a `SourceData`."""
