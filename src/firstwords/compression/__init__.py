"""Smaller models of trained ones: folder in, smaller folder out."""
