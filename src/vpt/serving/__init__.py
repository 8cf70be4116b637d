"""Many tuned files on one backbone: a bank of them, batches that mix tasks, a server and its page."""
