"""Notebooks run headlessly: one runner for the command line, the tests and CI."""
