"""Doing the runs of an experiment: in this process, in worker processes, or on a cluster; and what they cost."""
