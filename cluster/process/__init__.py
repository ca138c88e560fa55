"""This process: what it says to people, how it ends, a child beside it.

* `console`: lines for people, on stderr
* `interrupts`: SIGTERM as an interrupt; both can wait
* `failpoints`: points at which tests kill a process
* `memory`: how much this process has taken, and errors for lack of it
* `apart`: an object in a process of its own
* `crew`: objects in several, forked from one
"""
