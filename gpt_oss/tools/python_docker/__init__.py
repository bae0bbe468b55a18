"""The python tool: code of the model run in a container (or, by explicit choice, elsewhere)."""
