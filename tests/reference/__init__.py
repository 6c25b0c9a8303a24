"""Plain second implementations that tests and benchmarks hold the product against."""
