"""The report of a benchmark: its tables, its figures and one page that can be mailed.

Only the stage tabulate runs this package, so that its looks can change without a new evaluation.
"""
