"""How a network runs on this machine.

* `precision`: number format of the forward pass
* `compilation`: whether to compile; the cache of compiled networks
* `gpu`: a GPU's failures in the dispatch loop's terms
* `allocator`: freed memory, kept for the next batch
"""
