"""`compare`: what changed between two runs.

* `driver`: what is compared
* `tables`: changes that the tables tell
* `audits`: changes that the audits tell
* `metrics`: metrics' differences and their intervals
* `gates`: `--fail-if`
* `scratch`: tables of two runs in DuckDB
"""
