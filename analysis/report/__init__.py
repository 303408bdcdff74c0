"""Builds the report: orders its tables and figures, and writes their files and the HTML page."""
