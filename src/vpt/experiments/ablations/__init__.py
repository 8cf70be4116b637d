"""The paper's ablations as experiments of their own."""
