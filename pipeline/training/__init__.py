"""Trains the tokenizer, classifier, MaskGIT and baseline. If rerun, a killed run resumes."""
