"""Synthetic documents: seeds, prompts, teachers, acceptance, and the step that joins them."""
