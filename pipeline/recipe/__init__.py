"""The recipe, its sections, its parser, and the fingerprint of each stage."""
