"""Trains the four networks with one loop, which resumes after kills."""
