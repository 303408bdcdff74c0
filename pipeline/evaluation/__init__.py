"""Measures images: features, FID, IS, KID, precision and recall, and reconstruction quality."""
