"""Trains tokenizer, classifier, MaskGIT and baseline with one loop that resumes after kills."""
