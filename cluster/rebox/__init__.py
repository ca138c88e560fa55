"""`rebox`: a run's boxes anew, from its stored maps.

* `config`: its flags
* `driver`: begin the new run, do what is missing
* `replica`: one replica: a shard's maps in, two tables out
"""
