"""How models write function calls and reasoning: one file a family, the readers of their texts, and which model has which.

base.py       a tool, a format: constraint and reader          hermes.py, llama3_json.py, pythonic.py, mistral.py
steps.py      fixed texts with a name in them, piece by piece   values.py   arguments, piece by piece
reader.py     content and calls of an answer                    reasoning.py   what comes before the answer
detect.py     a chat template -> its formats
"""
