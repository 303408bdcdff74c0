"""What exhibits are made from: the result files, and the paper's own numbers."""
