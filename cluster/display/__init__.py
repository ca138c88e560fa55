"""A run as pictures for people.

* `image`: one image of a run, drawn
"""
