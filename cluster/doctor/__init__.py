"""`doctor`: what would keep a run from working here, and its cure: one line a check. It leaves nothing behind.

* `config`: its flags
* `driver`: what `jobs` calls: all checks, in the order of their cost
* `findings`: a check's verdict: ok, warn or fail, and the cure
* `machine`: this machine, or a node: Python, packages, limits, room, memory
* `places`: sources and --out, as a machine sees them
* `torches`: what needs torch: processor, compiler, GPUs, the network
* `node`: all that each node of a cluster is asked
"""
