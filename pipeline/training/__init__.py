"""Optimisation: one loop that survives kills, and the four things it trains."""
