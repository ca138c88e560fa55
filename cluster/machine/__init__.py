"""How a network runs on this machine.

* `prepare`: what a process is told before a network runs in it
* `network`: a run's network, loaded and on its device
* `precision`: number format of the forward pass
* `compilation`: whether to compile; the cache of compiled networks
* `gpu`: how many GPUs there are, and their failures in the dispatch loop's terms
* `allocator`: freed memory, kept for the next batch
"""
