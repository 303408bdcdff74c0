"""Claims, tables and figures, in one module per subject of the paper, and shared helpers."""
