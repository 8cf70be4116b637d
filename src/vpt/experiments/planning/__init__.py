"""From a plan file to an experiment: keys, validation, tasks with their data."""
