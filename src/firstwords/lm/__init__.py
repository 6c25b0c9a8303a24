"""Language models, from n-grams to LLMs: how probable is a text, before anything is heard?"""
