"""Interventions as values, context managers and batched generation under many conditions."""
