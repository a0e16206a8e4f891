"""Shipped recipes: Python files without logic, one for each built-in or published run."""
