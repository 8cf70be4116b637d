"""Reports of an experiment, made from its records alone: tables, pages, progress."""
