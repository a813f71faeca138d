"""Environments that a researcher starts the program in: proxies, other projects, no home, no terminal, little CPU."""
