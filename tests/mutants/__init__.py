"""Small changes of the code that tests must notice: `python -m tests.mutants` applies one at a time and reports survivors."""
