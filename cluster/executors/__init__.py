"""Numbered shards to replicas. Nothing here knows runs, pictures or torch.

*Replica* is the object that does shards, *actor* the process of Ray that holds one, *slot* what the dispatch loop notes
of one. One shard's way, a number all along:

    a command's driver           Work: "cluster.label.replica:open_replica" and its arguments; the numbers of the shards
      | executor.run(work, ..., shards)                                     ^ a ShardReport for each
      v                                                                     |
    dispatch                     the queue of shards; a slot for each replica, with the shards that it holds
      | begin_shard(shard, deaths)                                          ^ a Future: its end wakes the loop
      v                                                                     |
    ray_actors._ActorReplica     numbers the calls of its actor
      | .remote(shard, number, deaths)                                      ^ Ray: nothing but numbers and counts
    - - - - - - - - - - - - - - - from here on in a process of its own, on any node  - - - - - - - - - - - - - - - -
      v                                                                     |
    ray_actors._Actor            has called Work.replica, and waits until that is loaded
      | run_shard(shard, number, deaths)                                    ^ ShardReport
      v                                                                     |
    the replica                  LabelReplica, ReboxReplica, AuditReplica: pictures in, files out, in this process alone

`inline` has no loop and no actor: it calls `run_shard` of the one replica for a shard after the other.

* `work`: what all executors share: `Work`, `Executor`, a shard's report
* `choose`: Ray or here, which device, how many replicas
* `dispatch`: the loop that hands out shards and replaces what dies
* `places`: where no replica starts, where memory ran out
* `events`: what executors tell of beside reports
* `blame`: which shards replicas died at
* `pace`: how long shards take, which hang, which are slow
* `remote`: what the loop asks of a cluster and its replicas
* `ray_actors`: Ray, and its actors as the loop sees them
* `ray_nodes`: what each node of a Ray cluster answers, and what Ray would upload
* `own_folder`: where a Ray of our own keeps its files
* `inline`: one replica in this process
* `laps`: seconds of a shard by stage
* `turns`: threads pass in the order of their numbers
* `metrics`: what can be measured from outside, by name
* `progress`: lines on how a run advances
* `simulated`: simulated replicas, to measure the loop
"""
