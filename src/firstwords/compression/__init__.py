"""Smaller models from trained ones: folder in, smaller folder out."""
