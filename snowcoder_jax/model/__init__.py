"""The decoder: its maths, its attention, its loss, and its weights in Hugging Face format."""
