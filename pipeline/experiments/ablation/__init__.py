"""The ablation of Table 3 and Figure 8: one training per (schedule, seed), every T decoded from it,
and some models decoded with each other's schedule.

The run directory of a trial is named by a hash of what the trial depends on, without the rest of
the grid, and the file of a cell by a hash of its decoding settings. A trial that was killed trains
on from its last checkpoint and measures only the cells without a file; a larger grid runs only what
is new; other samples or metrics are measured without training again.
"""
