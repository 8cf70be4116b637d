"""The search for the best model within a time budget: a strong probe first, then what the rest of the time allows."""

from vpt.search.request import SearchRequest, wants_search
from vpt.search.search import run_search

__all__ = ["SearchRequest", "run_search", "wants_search"]
