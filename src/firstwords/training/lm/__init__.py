"""Training of neural language models: text in, folder out, by the loop of ../trainer.py."""
