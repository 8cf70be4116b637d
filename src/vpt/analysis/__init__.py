"""Analysis of methods and tuned models: summary, attention maps, embeddings."""
