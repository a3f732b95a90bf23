"""The trainer: batches by step number, one jitted step over a mesh, checkpoints, the loop."""
