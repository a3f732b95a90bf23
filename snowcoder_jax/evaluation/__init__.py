"""What a checkpoint can do: sampling, problems, the sandbox, scores."""
