"""Training: replicates of one attempt, resumable, on CPU and CUDA from the same code."""
