"""Language models: how probable is a text, before anything is heard?"""
