"""A student model learns what a trained one (the teacher) says."""
