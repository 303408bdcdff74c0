"""Trains tokenizer, classifier, MaskGIT and baseline. A killed training run resumes when rerun."""
