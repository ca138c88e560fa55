"""The science of camray: images, networks, class activation maps, boxes and their tables.

Pure functions over arrays: nothing here imports ray, reads the environment or parses flags.
"""
