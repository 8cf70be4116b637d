"""The paper's benchmarks as data: a task is a row (`vtab`, `fgvc`), a publisher's format one file in `layouts`."""
