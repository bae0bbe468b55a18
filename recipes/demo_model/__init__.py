"""How the embedded demonstration model is made: dialogues, training, evaluation, export (see README.md)."""
