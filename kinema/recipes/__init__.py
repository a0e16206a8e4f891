"""Shipped recipes: Python files without logic, one for each built-in or published run.

`kinema train NAME` runs a recipe. A file that reproduces a table has one recipe per row: `kinema train TABLE/ROW`.
"""
