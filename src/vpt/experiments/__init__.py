"""A comparison of methods over many tasks, after the paper's protocol: planned, run in pieces, and reported.

A plan (`plan.py`) is a list of runs, each with an id that is a hash of all that decides its result. A folder
(`store.py`) holds one record per run; workers (`work.py`, `runner.py`) do what is missing; the report is made of the
records alone.
"""
