"""Files that travel with the package: the vocabulary and the demonstration model."""
