"""Training: the step, the loop around it, schedules, checkpoints, metrics."""
