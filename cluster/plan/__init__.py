"""`plan`: what `label` would do, and what that would cost. Nothing is written to its --out.

* `config`: its flags
* `driver`: settle what `label` would, run the pilot, foretell
* `pilot`: a replica that labels a few images in a scratch folder, with a clock
* `headers`: a look at some more pictures, without decoding them
* `findings`: what a pilot found
* `estimate`: from that to times, sizes and prices
* `document`: all of it as one document
* `lines`: the document as people read it
"""
