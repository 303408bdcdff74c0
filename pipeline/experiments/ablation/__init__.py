"""The ablation of Table 3 and Figure 8: one training per (schedule, seed), every T decoded from it,
and some decoded with each other's schedule.

A trial has its own folders, whose names are hashes of what it depends on; the grid around it is no
part of that. A trial that was killed therefore trains on from its last checkpoint and measures only
the T without a file, a larger grid runs only what is new, and other samples or metrics are measured
without training again.
"""
