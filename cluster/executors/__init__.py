"""Numbered shards to replicas. Nothing here knows runs, pictures or torch.

*Replica* is the object that does shards, *actor* the process of Ray that holds one, *slot* what the dispatch loop notes
of one.

* `work`: what all executors share: `Work`, `Executor`, a shard's report
* `choose`: Ray or here, which device, how many replicas
* `dispatch`: the loop that hands out shards and replaces what dies
* `ray_actors`: Ray, and its actors as the loop sees them
* `inline`: one replica in this process
* `turns`: threads pass in the order of their numbers
* `progress`: lines on how a run advances
* `simulated`: simulated replicas, to measure the loop
"""
