"""The science of camray: pictures, networks, class activation maps, boxes and what they are worth.

Pure functions over arrays: nothing here imports ray or parses flags, and `outside` alone reads the environment.
What a room imports stands below it; the eleven at the end are everybody's.

* `fitting`: a calibration fitted to boxes that are known to be right or wrong
* `metrics`: how well maps and boxes localize
* `pictures`: decode, fit to the network's input, draw
* `explain`: a batch to raw maps, by any method
* `boxes`: a raw map to boxes
* `network`: load a network, find where it is cut for maps
* `arrays`: array types of signatures
* `class_lists`: files that name the classes
* `classes`: class names, words that choose classes
* `compiled`: loops over pixels, compiled
* `documents`: JSON, YAML and XML that others have made
* `errors`: errors and their exit codes
* `foreign`: text from outside, shown and stored
* `outside`: files that others have made
* `settings`: what may be asked of a network, its maps and boxes
* `tables`: Arrow schemas of a run's files
* `words`: when two words are the same, what separates them
"""
