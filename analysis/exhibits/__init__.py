"""A module for each table and figure of the paper, and what they are made with."""
