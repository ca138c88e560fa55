"""`label`: pictures to maps and boxes. Here a network meets the pictures of a source.

* `config`: its flags
* `settled`: what flags leave open, and the request that follows
* `early`: what can be said against a run before anything is loaded
* `preparation`: look at the network, settle what is open, write the plan
* `first_pictures`: what the network will see first
* `preparing`: the same, in whichever process
* `driver`: plan once, do what is missing
* `replica`: one replica: a shard in, three tables out
* `loader`: fetch and decode ahead of the network
* `decoders`: before a GPU, processes that do it
* `decoding`: decode one image, here or in a process that may die of it
* `quarantine`: pictures that kill their replica
* `rows`: a shard's tables as they grow
"""
