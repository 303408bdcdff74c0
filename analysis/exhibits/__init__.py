"""A module for each subject of the paper: its claims, tables and figures; and shared helpers."""
