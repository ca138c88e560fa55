"""What `bench` measures.

* `parts`: the parts of one replica, alone
* `runs`: whole runs of `label`, from outside
* `manifests`: manifests to measure with
* `copies`: commands on stored maps, on copies of a shard
* `ray_data`: the same arithmetic on Ray Data
"""
