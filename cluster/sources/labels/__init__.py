"""The class of each picture of a listing.

* `find`: by whichever label source was chosen
* `folders`: folders that name classes
* `files`: what a CSV of labels says, and of which image
* `words`: which classes the words of labels mean
"""
