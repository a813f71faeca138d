"""What is asked for: the recipe, its sections, how it is read, and the fingerprint of each stage."""
