"""Measuring samples: features, FID, IS, precision/recall, CAS."""
