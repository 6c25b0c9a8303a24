"""Language models: from n-grams to LLMs."""
