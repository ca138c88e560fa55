"""Everything that moves data or schedules work: sources, plan, run directory, worker, executors."""
