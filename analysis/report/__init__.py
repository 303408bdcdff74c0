"""The order of the exhibits, the files and the page that show them, and their sources."""
