"""MaskGIT as a pipeline: the paper's models, masking and decoding, and the experiment."""
