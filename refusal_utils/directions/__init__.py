"""The maths of refusal directions on tensors, and directions on disk with their provenance."""
