"""Training: one loop that survives kills, and the four networks that it trains."""
