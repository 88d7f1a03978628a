"""Every table and figure of the paper from one grid of runs: plan, units, schedule, tables, figures."""
