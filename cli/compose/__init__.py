"""Compose files to specs. Pure but for reading the files: no network, and nothing but argosy.core is imported.

stack.load_stack is the entry; verdicts.TABLE says what becomes of each key.
"""
