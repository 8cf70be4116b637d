"""The paper's benchmarks as data: a task is a table in a TOML file, a publisher's format one function in `layouts`."""
