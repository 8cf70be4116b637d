"""Comparisons of methods over many tasks, with the paper's protocol: planned, run in pieces, and reported.

A plan file (`planning`) becomes an `Experiment`: a list of runs, each with an id that is a hash of all that decides its
result. A folder (`store`) holds a record for each run, `running` does the missing ones, and `reports` are made from the
records alone. The demo and the `ablations` are experiments, too.
"""
