"""What `bench` measures.

* `config`: what it is asked
* `speed`: images a second, against the hardware's limit and against peers
* `scale`: what does not run a network
* `inputs`: what they measure with
* `figures`: how figures are printed
* `host`: a replica as before a GPU, with a stand-in for the device
* `device`: a GPU, or the CPU in its place: each part in its time
* `gpu`: these parts, in a process of their own
* `parts`: the parts of one replica, alone
* `runs`: whole runs of `label`, from outside
* `manifests`: manifests to measure with
* `copies`: commands on stored maps, on copies of a shard
* `ray_data`: the same arithmetic on Ray Data
"""
