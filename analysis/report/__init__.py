"""Builds the report: the order of the exhibits, their files and sources, and the page."""
