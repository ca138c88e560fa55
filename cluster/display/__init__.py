"""A run as pictures for people.

* `choosing`: which images: named, at random, of a class, the worst
* `audited`: what the run's audit says of them
* `image`: one image of a run, drawn
* `sheet`: several on one sheet
"""
