"""Plots and tables of a report's page: records in, HTML and inline SVG out.

What is drawn stands in percent across and in pixels down, so that a plot takes the width that it is given and its
words keep their size. Colours are classes of `page/plots.css`; there are neither ids nor styles.

* `marks`: elements, numbers as words, axes
* `histograms`: distributions over the run
* `heat`: grids in steps of colour: where boxes lie, mean maps
* `classes`: the table of classes
* `audit`: what an audit found
* `entries`: entries of metrics.json, a file from outside
* `figures`: its figures as tables
* `words`: what its figures mean
* `intervals`: a value with its interval, as a dot with whiskers
* `curves`: lines: accuracy over thresholds, precision over recall
* `speed`: images/s over time, and what it is spent on
* `comparison`: two runs side by side
"""
